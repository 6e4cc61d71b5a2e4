package orders_test

import (
	"path/filepath"
	"testing"

	"relayd/relay"
	"relayd/relay/orders"
)

func address(t *testing.T, s string) relay.Address {
	t.Helper()
	if s == "" {
		return relay.Address{}
	}
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A rule holds what matches all of it and nothing else, in the next process too, until it is
// removed by its own name.
func TestRules(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "orders")
	b := open(t, path)
	for _, r := range []orders.Rule{
		{From: "Eve@office.example", Reason: "on leave"}, {To: "*@partner.example", From: "ann"}, {Domain: "*.slow.example"}, {From: "<>", Domain: "world.example"},
	} {
		if was, err := b.AddRule(r); was || err != nil {
			t.Fatal(was, err)
		}
	}
	if _, err := b.AddRule(orders.Rule{Reason: "everything"}); err == nil {
		t.Error("a rule without a condition")
	}
	b = open(t, path)
	for _, c := range []struct{ from, to, want string }{
		{"eve@office.example", "bob@a.example", "by the rule --from eve@office.example: on leave"},
		{"ann@office.example", "bob@partner.example", "by the rule --from ann --to *@partner.example"},
		{"bob@office.example", "bob@partner.example", ""},
		{"bob@office.example", "bob@mx.slow.example", "by the rule --domain *.slow.example"},
		{"", "bob@world.example", "by the rule --from <> --domain world.example"},
		{"bob@office.example", "bob@world.example", ""},
	} {
		to := address(t, c.to)
		if got := b.Hold(address(t, c.from), to.Domain, []relay.Recipient{{Addr: to}}); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
	if was, err := b.RemoveRule(orders.Rule{From: "eve@office.example"}); !was || err != nil {
		t.Error(was, err)
	}
	if b = open(t, path); len(b.Rules()) != 3 {
		t.Error(b.Rules())
	}
}
