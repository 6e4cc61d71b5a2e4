package admin_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"relayd/relay"
	"relayd/relay/admin"
)

// holds holds ann.
type holds struct{ asked []relay.Address }

func (h *holds) Held() []string { return []string{"ann@office.example"} }

func (h *holds) Release(_ context.Context, user relay.Address) (int, bool, error) {
	h.asked = append(h.asked, user)
	if user.Local == "broken" {
		return 0, false, errors.New("no space left on device")
	}
	return 3, user.Local == "ann", nil
}

func TestReleaseUser(t *testing.T) {
	t.Parallel()
	h := &holds{}
	c, _ := serve(t, admin.Config{Queue: twoLetters(t), Holds: h})
	without, _ := serve(t, admin.Config{Queue: twoLetters(t)})
	ctx := context.Background()
	done, err := c.ReleaseUser(ctx, addr(t, "ann@office.example"))
	if err != nil || done != (admin.Released{User: addr(t, "ann@office.example"), Count: 3, Held: true}) || len(h.asked) != 1 {
		t.Errorf("%+v, %v, asked %v", done, err, h.asked)
	}
	for _, r := range []struct {
		c    *admin.Client
		user relay.Address
		code int
	}{
		{c, relay.Address{}, http.StatusBadRequest},
		{c, addr(t, "broken@office.example"), http.StatusInternalServerError},
		{without, addr(t, "ann@office.example"), http.StatusNotImplemented},
	} {
		_, err := r.c.ReleaseUser(ctx, r.user)
		if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != r.code {
			t.Errorf("%v: %v, want %d", r.user, err, r.code)
		}
	}
	st, err := c.Status(ctx)
	if err != nil || len(st.HeldUsers) != 1 || st.HeldUsers[0] != "ann@office.example" {
		t.Errorf("held %q, %v", st.HeldUsers, err)
	}
}
