package policy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

func selectors(keys []Key, role Role) string {
	var names []string
	for _, k := range keys {
		if k.Role == role {
			names = append(names, k.Selector)
		}
	}
	return strings.Join(names, " ")
}

// signers names the selectors that sign for the office.
func signers(ks *Keys) string {
	var names []string
	for _, k := range ks.signing(office) {
		names = append(names, k.Selector)
	}
	return strings.Join(names, " ")
}

func TestKeysAreMadeOnce(t *testing.T) {
	t.Parallel()
	ks, z, all := newOffice(t)
	if len(all) != 2 || all[0].Algorithm == all[1].Algorithm {
		t.Fatalf("keys %v", all)
	}
	for _, k := range all {
		st, err := os.Stat(k.path)
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v %v", k.path, st.Mode(), err)
		}
	}
	again := open(t, ks.dir, z)
	again.SetDomains([]relay.Domain{office})
	if signers(again) != signers(ks) || signers(ks) == "" {
		t.Errorf("after a restart %q signs, before %q", signers(again), signers(ks))
	}
	if got := list(t, again); len(got) != 2 || got[0].Record() != all[0].Record() || got[1].Record() != all[1].Record() {
		t.Errorf("after a restart: %v", got)
	}
}

// A key signs only while its record is seen; while the DNS is down, what was seen last holds.
func TestInvisibleKeysDoNotSign(t *testing.T) {
	t.Parallel()
	z := &zone{txt: map[string][]string{}}
	ks := open(t, t.TempDir(), z)
	ks.SetDomains([]relay.Domain{office, "branch.example"})
	all := list(t, ks)
	if len(all) != 4 || signers(ks) != "" || ks.Sign(office, nil) != nil {
		t.Fatalf("without records %q signs, of %v", signers(ks), all)
	}
	z.publish(all[2])
	list(t, ks)
	if signers(ks) != all[2].Selector {
		t.Errorf("with one record %q signs", signers(ks))
	}
	z.publish(all...)
	list(t, ks)
	z.down = true
	list(t, ks)
	if got := strings.Fields(signers(ks)); len(got) != 2 {
		t.Errorf("with the DNS down %q signs", got)
	}
	z.down = false
	key := map[string]*Key{}
	for i, k := range all {
		key[string(k.Domain)+k.Selector[:1]] = &all[i]
	}
	rsa := key["office.exampler"].Record()
	for problem, found := range map[string][]string{
		"another key":         {key["branch.exampler"].Record()},
		"another kind of key": {key["office.examplee"].Record()},
		"there are 2 records": {rsa, rsa},
		"cut short":           {rsa[:200]},
		"has no key":          {"v=DKIM1; k=rsa; p="},
		"not one of DKIM":     {"v=spf1 -all"},
	} {
		z.txt[key["office.exampler"].RecordName()] = found
		for _, k := range list(t, ks) {
			if k.Domain == office && k.Algorithm == RSA && (k.Visible || !strings.Contains(k.Problem, problem)) {
				t.Errorf("%s: visible %v, problem %q", problem, k.Visible, k.Problem)
			}
		}
		if got := signers(ks); len(strings.Fields(got)) != 1 || got[0] != 'e' {
			t.Errorf("%s: %q signs", problem, got)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	ks, z, first := newOffice(t)
	if _, err := ks.Rotate(t.Context(), office); !errors.Is(err, ErrNoKey) {
		t.Errorf("rotate without next keys: %v", err)
	}
	next, err := ks.New(office)
	if err != nil || len(next) != 2 || next[0].Selector == first[0].Selector {
		t.Fatalf("new: %v %v", next, err)
	}
	if _, err := ks.New(office); !errors.Is(err, ErrWaiting) {
		t.Errorf("new twice: %v", err)
	}
	z.publish(next[0])
	if _, err := ks.Rotate(t.Context(), office); !errors.Is(err, ErrNotVisible) || !strings.Contains(err.Error(), next[1].RecordName()) {
		t.Errorf("rotate with one record missing: %v", err)
	}
	before := signers(ks)
	z.publish(next...)
	if list(t, ks); signers(ks) != before {
		t.Errorf("the next keys sign before their time: %q", signers(ks))
	}
	after, err := ks.Rotate(t.Context(), office)
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, ks.dir, z)
	for _, ks := range []*Keys{ks, again} {
		for _, k := range next {
			if !strings.Contains(signers(ks), k.Selector) {
				t.Errorf("after the rotation %q signs", signers(ks))
			}
		}
	}
	if got := selectors(after, Old); len(strings.Fields(got)) != 2 {
		t.Errorf("old: %q", got)
	}
	// Without the new record the old key signs as long as it is there.
	delete(z.txt, next[0].RecordName())
	if list(t, ks); len(strings.Fields(signers(ks))) != 2 || strings.Contains(signers(ks), next[0].Selector) {
		t.Errorf("with the new record gone %q signs", signers(ks))
	}
}

func TestRetire(t *testing.T) {
	t.Parallel()
	ks, z, first := newOffice(t)
	selector := first[0].Selector
	if _, err := ks.Retire(office, selector, true); !errors.Is(err, ErrInUse) {
		t.Errorf("retire what signs: %v", err)
	}
	if _, err := ks.Retire(office, "nothing", false); !errors.Is(err, ErrNoKey) {
		t.Errorf("retire what is not there: %v", err)
	}
	next, err := ks.New(office)
	if err != nil {
		t.Fatal(err)
	}
	z.publish(next...)
	if _, err := ks.Rotate(t.Context(), office); err != nil {
		t.Fatal(err)
	}
	if _, err := ks.Retire(office, selector, false); !errors.Is(err, ErrInUse) {
		t.Errorf("retire within the overlap: %v", err)
	}
	k, err := ks.Retire(office, selector, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(k.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its file is still there: %v", err)
	}
	// The selector is not used again.
	more, err := ks.New(office)
	if err != nil || more[0].Selector == selector || more[1].Selector == selector {
		t.Errorf("new after retire: %v %v", more, err)
	}
}

// A broken file costs its key, not the start.
func TestBrokenKeyFile(t *testing.T) {
	t.Parallel()
	ks, z, all := newOffice(t)
	if err := os.WriteFile(all[0].path, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ks.dir, "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, ks.dir, z)
	again.SetDomains([]relay.Domain{office})
	if list(t, again); signers(again) != all[1].Selector {
		t.Errorf("%q signs", signers(again))
	}
}

// Run makes keys, sees their records within a minute, and that one has gone within ten.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		z := &zone{txt: map[string][]string{}}
		ks := open(t, t.TempDir(), z)
		ks.SetDomains([]relay.Domain{office})
		go ks.Run(t.Context())
		time.Sleep(2 * firstKeys)
		synctest.Wait()
		all := ks.list()
		if len(all) != 2 {
			t.Fatalf("after the start there are %d keys", len(all))
		}
		z.publish(all...)
		time.Sleep(checkSoon)
		synctest.Wait()
		if len(ks.signing(office)) != 2 {
			t.Error("a minute after they were published the keys do not sign")
		}
		z.mu.Lock()
		z.txt = map[string][]string{}
		z.mu.Unlock()
		time.Sleep(checkInterval)
		synctest.Wait()
		if signers(ks) != "" {
			t.Errorf("without a record %q signs", signers(ks))
		}
	})
}

func TestTXTStrings(t *testing.T) {
	t.Parallel()
	_, _, all := newOffice(t)
	for _, k := range all {
		text := TXTStrings(k.Record())
		joined := ""
		for _, part := range strings.Split(strings.Trim(text, `"`), `" "`) {
			if len(part) > 255 {
				t.Errorf("%s: a string of %d octets", k.Selector, len(part))
			}
			joined += part
		}
		if joined != k.Record() {
			t.Errorf("%s: %s", k.Selector, text)
		}
	}
}
