package orders_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"relayd/relay"
	"relayd/relay/orders"
)

func open(t *testing.T, path string) *orders.Book {
	t.Helper()
	b, err := orders.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A pause is on the disk when Pause returns, counts in the next process, and ends by its own name
// alone.
func TestPauseOutlivesUs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "orders")
	b := open(t, path)
	for _, p := range []orders.Pause{
		{What: orders.Sending, Domain: "Partner.Example"}, {What: orders.Sending, Domain: "*.slow.example"}, {What: orders.Inbound},
	} {
		if was, err := b.Pause(p); err != nil || was {
			t.Fatal(was, err)
		}
	}
	b = open(t, path)
	for domain, want := range map[string]bool{
		"partner.example": true, "mx.slow.example": true, "slow.example": false, "other.example": false,
	} {
		if got := orders.Find(b.Pauses(), "") != nil; got {
			t.Error("sending rests altogether")
		}
		if got := orders.Find(b.Pauses(), relay.Domain(domain)) != nil; got != want {
			t.Errorf("sending to %s rests: %v", domain, got)
		}
	}
	if !b.Rests(orders.Inbound) || b.Rests(orders.POP3) {
		t.Error("inbound and pop3 were taken for one another")
	}
	if was, _ := b.Pause(orders.Pause{What: orders.Inbound}); !was || len(b.Pauses()) != 3 {
		t.Error("a pause was given twice")
	}
	if was, err := b.Resume(orders.Pause{What: orders.Sending}); was || err != nil {
		t.Error("the pauses of domains were taken for that of all")
	}
	if was, err := b.Resume(orders.Pause{What: orders.Sending, Domain: "partner.example"}); !was || err != nil {
		t.Error(was, err)
	}
	if b = open(t, path); b.Paused("partner.example") || !b.Paused("mx.slow.example") {
		t.Errorf("after resume: %v", b.Pauses())
	}
}

// What cannot be meant is refused; what cannot be written is not in force.
func TestPauseRefuses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gone")
	b := open(t, filepath.Join(dir, "orders"))
	for _, p := range []orders.Pause{
		{What: "mail"}, {What: orders.POP3, Domain: "a.example"}, {What: orders.Sending, Domain: "a..b"},
	} {
		if _, err := b.Pause(p); !errors.Is(err, orders.ErrBad) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := b.Pause(orders.Pause{What: orders.POP3}); err == nil || b.Rests(orders.POP3) {
		t.Error("in force and not on the disk:", err)
	}
}

// Of damaged orders nobody knows what they stopped: nothing is sent, and the file is kept.
func TestDamagedOrdersStopSending(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "orders")
	if err := os.WriteFile(path, []byte(`{"pauses":[{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := open(t, path); !b.Paused("partner.example") || b.Rests(orders.Inbound) {
		t.Error(b.Pauses())
	}
	if b := open(t, path); !b.Paused("partner.example") {
		t.Error("forgotten at the next start")
	}
	if kept, _ := os.ReadFile(path + ".damaged"); string(kept) != `{"pauses":[{` {
		t.Errorf("kept %q", kept)
	}
}
