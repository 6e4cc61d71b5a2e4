package admin_test

import (
	"errors"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/relay"
	"relayd/relay/admin"
)

// logins remembers what it was told to forgive.
type logins struct {
	list   []admin.Guessing
	user   relay.Address
	client netip.Addr
	calls  int
}

func (l *logins) Guesses() []admin.Guessing { return l.list }

func (l *logins) Forgive(user relay.Address, client netip.Addr) int {
	l.user, l.client = user, client
	l.calls++
	return 7
}

func TestLogins(t *testing.T) {
	t.Parallel()
	l := &logins{}
	c, _ := serve(t, admin.Config{Queue: twoLetters(t), Logins: l})
	if got, err := c.Guesses(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	l.list = []admin.Guessing{
		{Client: netip.MustParsePrefix("203.0.113.9/32"), User: "ann@office.example", Failures: 12, Last: at, Until: at.Add(time.Hour)},
		{Client: netip.MustParsePrefix("2001:db8::/64"), All: true, Failures: 1, Last: at},
	}
	got, err := c.Guesses(t.Context())
	if diff := cmp.Diff(l.list, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || err != nil {
		t.Error(diff, err)
	}
	n, err := c.Forgive(t.Context(), admin.Pardon{User: addr(t, "ann@office.example"), Client: netip.MustParseAddr("203.0.113.9")})
	if n != 7 || err != nil || l.user.String() != "ann@office.example" || l.client.String() != "203.0.113.9" {
		t.Errorf("%d, %v, %+v", n, err, l)
	}
	if _, err := c.Forgive(t.Context(), admin.Pardon{All: true}); err != nil || !l.user.IsNull() || l.client.IsValid() {
		t.Errorf("%v, %+v", err, l)
	}
}

// No slip forgives everybody.
func TestLoginsRefusals(t *testing.T) {
	t.Parallel()
	l := &logins{}
	with, _ := serve(t, admin.Config{Queue: twoLetters(t), Logins: l})
	without, _ := serve(t, admin.Config{Queue: twoLetters(t)})
	_, err := with.Forgive(t.Context(), admin.Pardon{})
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != http.StatusBadRequest || l.calls != 0 {
		t.Errorf("nobody named: %v", err)
	}
	_, err = without.Guesses(t.Context())
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != http.StatusNotImplemented {
		t.Errorf("nobody counts: %v", err)
	}
}
