package queue

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// flip changes an octet of a file, counted from its end where at is negative.
func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 4
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func kinds(faults []Fault) (all []string) {
	for _, f := range faults {
		all = append(all, f.Kind)
	}
	return all
}

// damages are what can befall the letter of a mendable, the fault it is found as, and whether
// Repair mends it with the queue running.
var damages = map[string]struct {
	do    func(m *mendable)
	kind  string
	mends bool
}{
	"record":        {func(m *mendable) { m.harm(false) }, FaultRecord, true},
	"body":          {func(m *mendable) { flip(m.T, m.body(m.k.ID), 3) }, FaultBody, false},
	"missing body":  {func(m *mendable) { os.Remove(m.body(m.k.ID)) }, FaultBody, false},
	"trailer":       {func(m *mendable) { flip(m.T, m.body(m.k.ID), -60) }, FaultTrailer, true},
	"cut trailer":   {func(m *mendable) { os.Truncate(m.body(m.k.ID), 20) }, FaultTrailer, true},
	"due too late":  {func(m *mendable) { m.index.get(m.k).due += int64(1000 * time.Hour) }, FaultIndex, true},
	"held, it says": {func(m *mendable) { m.index.get(m.k).held = true }, FaultIndex, true},
	"not ranked":    {func(m *mendable) { m.index.get(m.k).at = out; m.index.dests[m.k.Domain].waiting.list = nil }, FaultIndex, true},
	"forgotten":     {func(m *mendable) { m.index.remove(m.k) }, FaultIndex, true},
	"of nobody":     {func(m *mendable) { m.index.add(Key{m.k.ID, "x.example"}, header{}, 0) }, FaultIndex, true},
	"miscounted":    {func(m *mendable) { m.index.items += 3; m.index.dests[m.k.Domain].items = 0 }, FaultIndex, true},
	"missized":      {func(m *mendable) { m.index.letters[m.k.ID].size++ }, FaultIndex, true},
}

// Check names each damage once as what it is, with the queue running and (where it is on the disk)
// without; Repair mends it, the letter goes its way, and Check finds nothing more.
func TestCheckAndRepair(t *testing.T) {
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			m := newMendable(t)
			d.do(m)
			r, err := m.Inspect(t.Context())
			if err != nil || !slices.Contains(kinds(r.Faults), d.kind) || r.Err() == nil {
				t.Fatalf("found %+v, %v", r, err)
			}
			done, err := m.Repair(t.Context())
			if err != nil || (done.Left.Err() == nil) != d.mends || (len(done.Mended) > 0) != d.mends {
				t.Errorf("repaired %+v, %v", done, err)
			}
			items := m.take()
			if len(items) != 1 || len(items[0].Rcpts) != 2 {
				t.Errorf("took %+v", items)
			}
			if _, err := m.Body(m.k.ID); (err == nil) != d.mends {
				t.Errorf("body: %v", err)
			}
			var all []relay.Result
			for _, rc := range items[0].Rcpts {
				all = append(all, relay.Result{Rcpt: rc.Addr, Outcome: relay.Delivered})
			}
			if err := m.Settle(t.Context(), m.k, all, false); err != nil {
				t.Error(err)
			}
		})
	}
}

// The same without a daemon: what is on the disk is found the same way and changes nothing; Repair
// leaves a queue that opens and has the letter.
func TestCheckAndRepairWithoutDaemon(t *testing.T) {
	all := map[string]func(m *mendable){
		"database": func(m *mendable) {
			size, _ := os.Stat(m.layout.db())
			os.WriteFile(m.layout.db(), make([]byte, size.Size()), 0o600)
		},
		"no database": func(m *mendable) { os.Remove(m.layout.db()) },
		"meta page":   func(m *mendable) { flip(m.T, m.layout.db(), 20) },
	}
	kind := map[string]string{"database": FaultDatabase, "no database": FaultDatabase, "meta page": FaultDatabase}
	for name, d := range damages {
		if d.kind != FaultIndex && d.mends {
			all[name], kind[name] = d.do, d.kind
		}
	}
	for name, do := range all {
		t.Run(name, func(t *testing.T) {
			m := newMendable(t)
			dir := m.dir
			if kind[name] == FaultRecord {
				do(m)
				m.Close()
			} else {
				m.Close()
				do(m)
			}
			before := contents(t, dir)
			r, err := Inspect(t.Context(), dir)
			if err != nil || !slices.Equal(kinds(r.Faults), []string{kind[name]}) {
				t.Errorf("found %+v, %v", r, err)
			}
			if !bytes.Equal(before, contents(t, dir)) {
				t.Error("looking changed the queue")
			}
			done, err := Repair(t.Context(), dir, Options{})
			if err != nil || done.Left.Err() != nil || len(done.Mended) != 1 || done.Left.Items != 1 {
				t.Errorf("repaired %+v, %v", done, err)
			}
			m.reopen()
			if items := m.take(); len(items) != 1 || len(items[0].Rcpts) != 2 {
				t.Errorf("took %+v", items)
			}
		})
	}
}

// contents is every file below dir, for comparing.
func contents(t *testing.T, dir string) []byte {
	var all bytes.Buffer
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(path)
			all.WriteString(path)
			all.Write(b)
		}
		return err
	})
	return all.Bytes()
}

func (m *mendable) reopen() {
	m.Helper()
	q, err := Open(m.dir, Options{})
	if err != nil {
		m.Fatal(err)
	}
	m.Queue = q
}

// What a crash left and what was set aside before is told, and is no fault.
func TestCheckNotes(t *testing.T) {
	m := newMendable(t)
	m.Close()
	if err := os.WriteFile(m.body(relay.NewID(time.Now())), []byte("half a"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(t.Context(), m.dir)
	if err != nil || r.Err() != nil || !slices.Equal(kinds(r.Faults), []string{FaultOrphan}) || r.Letters != 1 || r.Items != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	done, err := Repair(t.Context(), m.dir, Options{})
	if err != nil || len(done.Left.Faults) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	m.reopen()
	m.harm(true)
	m.take()
	r, err = m.Inspect(t.Context())
	if err != nil || r.Err() != nil || !slices.Equal(kinds(r.Faults), []string{FaultAside, FaultAside}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Inspect(t.Context(), m.dir); !errors.Is(err, ErrInUse) {
		t.Errorf("beside a daemon: %v", err)
	}
	if _, err := Inspect(t.Context(), filepath.Join(m.dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("where there is none: %v", err)
	}
}

// A record whose JSON is wrong though its checksum is right, and one without recipients, are found
// too: our own fault, then, not the disk's.
func TestCheckReadsWhatChecksumsVouchFor(t *testing.T) {
	m := newMendable(t)
	put := func(f func(it *Item)) {
		t.Helper()
		items, err := m.Get(t.Context(), m.k.ID)
		if err != nil {
			t.Fatal(err)
		}
		h, _ := m.header(m.k.ID)
		f(&items[0])
		record, err := encode(&items[0], h.sum)
		if err == nil {
			err = m.Queue.db.Update(func(btx *bbolt.Tx) error {
				return btx.Bucket(itemsBucket).Put([]byte(m.k.String()), record)
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var rcpts []relay.Recipient
	put(func(it *Item) { rcpts, it.Rcpts = it.Rcpts, nil })
	if r, err := m.Inspect(t.Context()); err != nil || !slices.Equal(kinds(r.Faults), []string{FaultRecord}) {
		t.Errorf("no recipients: %+v, %v", r, err)
	}
	put(func(it *Item) { it.Rcpts = rcpts })
}
