package queue_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// fail makes an attempt at every item that is due by then; each leaves its dialogue.
func (f *office) fail(now time.Time, size int) {
	f.Helper()
	for _, it := range takeAt(f, now) {
		all := results(it, relay.Deferred)
		all[0].Transcript = fmt.Sprintf("attempt %d at %s", it.Attempts, it.Domain) + strings.Repeat(".", size)
		if err := f.q.Settle(f.Context(), it.Key(), all, false); err != nil {
			f.Fatal(err)
		}
		if all[0].Transcript == "" {
			f.Error("the caller's results were changed")
		}
	}
}

// dropAll ends a test whose attempts were made in the future.
func (f *office) dropAll() {
	f.Helper()
	if _, err := f.q.Drop(f.Context(), queue.Filter{}); err != nil {
		f.Fatal(err)
	}
	if n := len(f.transcripts()); n != 0 {
		f.Errorf("%d files without an item", n)
	}
}

func (f *office) transcripts() []string {
	names, err := filepath.Glob(filepath.Join(f.dir, "transcripts", "*"))
	if err != nil {
		f.Error(err)
	}
	return names
}

func (f *office) attempts(k queue.Key) (numbers []int) {
	f.Helper()
	all, err := f.q.Transcripts(k)
	if err != nil {
		f.Fatal(err)
	}
	for _, t := range all {
		if !strings.HasPrefix(t.Text, fmt.Sprintf("attempt %d at %s", t.Attempt, k.Domain)) || time.Since(t.At).Abs() > time.Hour {
			f.Errorf("attempt %d has %.40q of %v", t.Attempt, t.Text, t.At)
		}
		numbers = append(numbers, t.Attempt)
	}
	return numbers
}

// The dialogue of every failed attempt is kept, for each domain of a letter, over a restart, and goes
// with the item. No record grows by it.
func TestTranscriptsAreKept(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	long := strings.Repeat(strings.Repeat("a", 50)+".", 4) + "example"
	id := f.send("bob@a.example", "bob@"+long)
	now := time.Now()
	for range 5 {
		now = now.Add(5 * time.Hour)
		f.fail(now, 500)
	}
	want := []int{1, 2, 3, 4, 5}
	for _, when := range []string{"at once", "after a restart"} {
		for _, d := range []relay.Domain{"a.example", relay.Domain(long)} {
			if got := f.attempts(queue.Key{ID: id, Domain: d}); !slices.Equal(got, want) {
				t.Errorf("%s: %s has the attempts %v", when, d, got)
			}
		}
		f.reopen()
	}
	items := takeAt(f, now.Add(5*time.Hour))
	f.settle(items[0], relay.Delivered)
	if n := len(f.transcripts()); n != 1 {
		t.Errorf("%d files after one of two was delivered", n)
	}
	f.dropAll()
}

// What an item keeps is bounded: the first and the newest dialogues stay.
func TestTranscriptsAreBounded(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	k := queue.Key{ID: f.send("bob@a.example"), Domain: "a.example"}
	now := time.Now()
	for i := range 40 {
		now = now.Add(5 * time.Hour)
		f.fail(now, 100+i*1000)
		info, err := os.Stat(f.transcripts()[0])
		if err != nil || info.Size() > 64<<10 {
			t.Fatalf("%d octets, %v", info.Size(), err)
		}
		if n := len(f.transcripts()); n != 1 {
			t.Fatalf("%d files", n)
		}
	}
	got := f.attempts(k)
	if len(got) < 5 || got[0] != 1 || got[len(got)-1] != 40 || !slices.IsSorted(got) {
		t.Errorf("kept the attempts %v", got)
	}
	f.dropAll()
}

// What a crash tears or leaves behind costs a dialogue: the others are read, and the start after it
// removes what belongs to no item.
func TestTranscriptsAfterACrash(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	k := queue.Key{ID: f.send("bob@a.example"), Domain: "a.example"}
	f.fail(time.Now().Add(time.Second), 100)
	name := f.transcripts()[0]
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(whole, whole[:len(whole)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, stray := range []string{string(relay.NewID(time.Now())) + ".a.example", string(k.ID) + ".b.example", "x"} {
		if err := os.WriteFile(filepath.Join(f.dir, "transcripts", stray), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.close()
	if err := os.WriteFile(filepath.Join(f.dir, "unclean"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.open()
	for end := time.Now().Add(10 * time.Second); len(f.transcripts()) != 1; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("left: %v", f.transcripts())
		}
	}
	f.fail(time.Now().Add(5*time.Hour), 100)
	if got := f.attempts(k); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("kept the attempts %v", got)
	}
	f.dropAll()
}
