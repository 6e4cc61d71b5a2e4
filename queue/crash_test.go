package queue_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// crashDir in the environment makes the test binary the child of TestKill9.
const crashDir = "RELAYD_QUEUE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

// crashChild takes mail in, delivers and defers it, from several goroutines, and says on stdout
// what the outside world was told: "+id" a 250, "-id" an attempt that is about to deliver. It ends
// when it is killed, or when its parent is gone.
func crashChild(dir string) {
	say := make(chan string)
	q, err := queue.Open(dir, queue.Options{})
	if err != nil {
		fmt.Println("!", err)
		return
	}
	for range 4 {
		go func() {
			for {
				env := envelope("x@a.example", "y@b.example")
				s, err := q.Stage(context.Background(), env)
				if err == nil {
					s.Write([]byte(text))
					err = s.Commit(context.Background())
				}
				if err != nil {
					say <- "! " + err.Error()
					return
				}
				say <- "+" + string(env.ID)
			}
		}()
	}
	go func() {
		for {
			items, err := q.Take(context.Background(), time.Now(), 3, nil)
			if err != nil {
				say <- "! " + err.Error()
			}
			for _, it := range items {
				if it.Domain != "b.example" {
					say <- "-" + it.Key().String()
				}
				o := map[bool]relay.Outcome{true: relay.Deferred, false: relay.Delivered}[it.Domain == "b.example"]
				if err := q.Settle(context.Background(), it.Key(), results(it, o), false); err != nil {
					say <- "! " + err.Error()
				}
			}
		}
	}()
	for line := range say {
		if _, err := fmt.Println(line); err != nil {
			return
		}
	}
}

// After kill -9 at any moment the queue opens, and every letter answered 250 is there for each
// domain it was not delivered to, with its body; what was never answered left nothing half.
func TestKill9(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	f := newOffice(t)
	owed := map[string]bool{}
	accepted := 0
	for round := range rounds {
		f.close()
		lines := 40 + 71*round
		for line := range crash(t, f.dir, lines) {
			switch id := line[1:]; line[0] {
			case '+':
				accepted++
				for _, d := range []string{"/a.example", "/b.example"} {
					if _, gone := owed[id+d]; !gone {
						owed[id+d] = true
					}
				}
			case '-':
				owed[id] = false // delivered or about to be, perhaps before its 250 was heard
			default:
				t.Fatal("the child says", line)
			}
		}
		f.open()
		if err := f.q.Check(t.Context()); err != nil {
			t.Error(err)
		}
		have := map[string]bool{}
		for _, it := range f.list(queue.Filter{}) {
			have[it.Key().String()] = true
			if got := f.body(it.ID); got != text {
				t.Errorf("%s has the body %q", it.ID, got)
			}
		}
		for key, owe := range owed {
			if owe && !have[key] {
				t.Errorf("round %d: %s was promised and is lost", round, key)
			}
		}
	}
	if accepted < rounds*10 {
		t.Errorf("only %d letters in %d rounds", accepted, rounds)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "corrupt")); err == nil {
		t.Error("a mere crash set something aside")
	}
}

// crash runs a child on dir until it has said enough lines and kills it; it yields what it said.
func crash(t *testing.T, dir string, enough int) func(func(string) bool) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = t.Output()
	// The kernel ends the child with the thread that started it, whatever becomes of the test.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		said = append(said, lines.Text())
		if len(said) == enough {
			cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended by itself: %v; it said %v", err, said[max(0, len(said)-3):])
	}
	return func(yield func(string) bool) {
		for _, line := range said {
			if !yield(line) {
				return
			}
		}
	}
}

// A first attempt writes nothing, and yet a crash during it hammers nobody: whatever has had no
// attempt waits a pause after a crash, and nothing waits after an end in order.
func TestFirstAttemptOverAnEnd(t *testing.T) {
	f := newOffice(t)
	taken, waiting := f.send("bob@a.example"), f.send("carl@b.example")
	if items := f.take(1, func(d relay.Domain) bool { return d != "a.example" }); len(items) != 1 || items[0].Attempts != 1 {
		t.Fatal(items)
	}
	show := func(id relay.ID) queue.Item {
		t.Helper()
		items, err := f.q.Get(t.Context(), id)
		if err != nil || len(items) != 1 {
			t.Fatal(items, err)
		}
		return items[0]
	}
	next := show(taken).Next
	f.reopen() // in order
	if it := show(taken); it.Attempts != 1 || !it.Next.Equal(next) {
		t.Errorf("after an end in order: attempt %d, next %v; want 1 and %v", it.Attempts, it.Next, next)
	}
	if items := f.take(9, nil); len(items) != 1 || items[0].ID != waiting {
		t.Fatalf("took %s, want what had not been attempted", keys(items))
	}
	f.settle(f.one(waiting), relay.Deferred)

	fresh := f.send("dora@c.example")
	copied := f.crash()
	if items := copied.take(9, nil); len(items) != 0 {
		t.Errorf("after a crash: took %s at once", keys(items))
	}
	due, ok := copied.q.NextDue()
	if wait := time.Until(due); !ok || wait < 4*time.Minute || wait > 6*time.Minute {
		t.Errorf("after a crash: due in %v, want about five minutes", wait)
	}
	items, err := copied.q.Take(t.Context(), time.Now().Add(6*time.Minute), 9, func(d relay.Domain) bool { return d != "c.example" })
	if err != nil || len(items) != 1 || items[0].ID != fresh {
		t.Fatalf("after the pause: %v, %v", items, err)
	}
	// Known to the disk this time: another crash makes it wait longer.
	copied = copied.crash()
	if it, err := copied.q.Get(t.Context(), fresh); err != nil || it[0].Attempts != 1 {
		t.Errorf("after two crashes: %+v, %v", it, err)
	}
}

// left is a copy of what would be on the disk if this process died now.
func (f *office) left() (dir string) {
	f.Helper()
	dir = filepath.Join(f.TempDir(), "queue")
	f.q.Frozen(func() {
		if err := os.CopyFS(dir, os.DirFS(f.dir)); err != nil {
			f.Fatal(err)
		}
	})
	return dir
}

func (f *office) one(id relay.ID) queue.Item {
	f.Helper()
	items, err := f.q.Get(f.Context(), id)
	if err != nil || len(items) != 1 {
		f.Fatal(items, err)
	}
	return items[0]
}

// crash is the office as another process finds it when this one has died now.
func (f *office) crash() *office {
	f.Helper()
	g := &office{TB: f.TB, dir: f.left()}
	g.open()
	f.Cleanup(g.finish)
	return g
}
