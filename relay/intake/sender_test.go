package intake_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
)

// as is a client on the submission port, logged in as user.
func as(user string) relay.Origin {
	return relay.Origin{Client: netip.MustParseAddrPort("192.0.2.9:4000"), Server: netip.MustParseAddrPort("198.51.100.1:587"),
		Helo: "laptop.example", Proto: "ESMTPSA", User: user, Service: "submission"}
}

// grantedOffice is an office where some may send as others.
func grantedOffice() *intake.Directory {
	d := office()
	d.Grants = map[relay.Address]intake.Grant{
		{Local: "bob", Domain: "office.example"}:      {Addresses: []relay.Address{{Local: "info", Domain: "office.example"}, {Local: "*", Domain: "branch.example"}}},
		{Local: "self", Domain: "office.example"}:     {Any: true},
		{Local: "guest", Domain: "elsewhere.example"}: {},
	}
	return d
}

// submit sends a letter of a login and returns the refusal, empty for none.
func (h *house) submit(t *testing.T, o relay.Origin, from, body string, rcpts ...string) string {
	t.Helper()
	path, err := relay.ParsePath("<"+from+">", true)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := h.Begin(t.Context(), o, path, relay.MailParams{})
	for _, r := range rcpts {
		if to, bad := relay.ParseAddress(r, true); bad != nil {
			t.Fatal(bad)
		} else if err == nil {
			err = tx.Rcpt(t.Context(), to, relay.RcptParams{})
		}
	}
	if err == nil {
		_, err = tx.Receive(t.Context(), strings.NewReader(body))
	}
	if err == nil {
		return ""
	}
	f, ok := errors.AsType[*relay.Failure](err)
	if !ok {
		t.Fatal(err)
	}
	return f.Reply.String()
}

// A login sends as itself, as whom aliases lead to it, and as the config says; the refusal names
// the login and the address. Each address is tried as the reverse-path and in From.
func TestSenderOwnership(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		user, sender string
		ok           bool
	}{
		{"ann@office.example", "ann@office.example", true},
		{"ann@office.example", "ANN@OFFICE.example", true},
		{"ann@office.example", "ann+shop@office.example", true},
		{"ann@office.example", "ann@mail.office.example", true},
		{"ann@office.example", "sales@office.example", true},
		{"ann@office.example", "Sales+x@office.example", true},
		{"ann@office.example", "all@office.example", true}, // by way of sales
		{"ann@office.example", "postmaster@office.example", true},
		{"ann@office.example", "bob@office.example", false},
		{"ann@office.example", "info@office.example", false},
		{"ann@office.example", "nobody@office.example", false},
		{"ann@office.example", "away@office.example", false},
		{"ann@office.example", "circle@office.example", false},
		{"ann@office.example", "ann@branch.example", false},
		{"ann@office.example", "ann@office.example.evil.example", false},
		{"ann@office.example", "dora@partner.example", false},
		{"ann@office.example", "annx@office.example", false},
		{"ann@office.example", `"ann@office.example"@partner.example`, false},
		{"bob@office.example", "postmaster@office.example", false},
		{"bob@office.example", "info@office.example", true},
		{"bob@office.example", "INFO@office.example", true},
		{"bob@office.example", "info2@office.example", false},
		{"bob@office.example", "carol@branch.example", true},
		{"bob@office.example", "anybody@branch.example", true},
		{"bob@office.example", "x@sub.branch.example", false},
		{"self@office.example", "president@white-house.example", true},
		{"guest@elsewhere.example", "guest@elsewhere.example", true}, // logs in, and has no mailbox here
		{"guest@elsewhere.example", "guest+x@elsewhere.example", true},
		{"guest@elsewhere.example", "other@elsewhere.example", false},
	} {
		for where, try := range map[string]func(*house) string{
			"envelope": func(h *house) string { return h.submit(t, as(c.user), c.sender, hello, "dora@partner.example") },
			"From": func(h *house) string {
				return h.submit(t, as(c.user), "", "From: Somebody\r\n <"+c.sender+">\r\n\r\n", "dora@partner.example")
			},
		} {
			h := newHouse(t)
			h.Set(intake.Settings{Directory: grantedOffice(), Limits: intake.Limits{ReceivedFields: 100}})
			got := try(h)
			switch {
			case c.ok && got != "":
				t.Errorf("%s as %s in %s: %s", c.user, c.sender, where, got)
			case !c.ok && !(strings.HasPrefix(got, "550 5.7.1") && strings.Contains(got, c.user) && strings.Contains(got, c.sender)):
				t.Errorf("%s as %s in %s: %q", c.user, c.sender, where, got)
			case !c.ok && len(h.foreign.letters) != 0:
				t.Errorf("%s as %s in %s was refused and staged", c.user, c.sender, where)
			}
		}
	}
}

// Every way to show a reader somebody else in From.
func TestFromMustBeOwn(t *testing.T) {
	t.Parallel()
	const own, other = "From: ann@office.example\r\n", "From: boss@partner.example\r\n"
	for _, c := range []struct {
		body string
		ok   bool
	}{
		{own + "\r\n", true},
		{"Subject: no From\r\n\r\n", true},
		{"From: ann@office.example, Sales <sales@office.example>\r\n\r\n", true},
		{"From: ann\r\n\r\n", true},
		{own + "\r\n" + other, true}, // in the text
		{"Resent-" + own + own + "\r\n", true},
		{other + "\r\n", false},
		{own + other + "\r\n", false},
		{other + own + "\r\n", false},
		{"FROM : boss@partner.example\r\n\r\n", false},
		{"From:\r\n boss@partner.example\r\n\r\n", false},
		{"From: ann@office.example, boss@partner.example\r\n\r\n", false},
		{"From: ann@office.example\r\n\t, boss@partner.example\r\n\r\n", false},
		{"From: boss@partner.example <ann@office.example>\r\n\r\n", false},
		{"From: us: ann@office.example, boss@partner.example;\r\n\r\n", false},
		{"From: <boss@partner.example> (ann@office.example)\r\n\r\n", false},
		{"From: bob\r\n\r\n", false},
		{"From:\r\n\r\n", false},
		{"From: undisclosed:;\r\n\r\n", false},
		{"From: Ann Miller\r\n\r\n", false},
		{"From: \"ann@office.example\r\n\r\n", false},
		{"no field\r\n" + other + "\r\n", false},
		{"X: " + strings.Repeat("x", 300<<10) + "\r\n" + other + "\r\n", false},
		{other, false},
		{strings.TrimSuffix(other, "\r\n"), false},
	} {
		for _, from := range []string{"ann@office.example", ""} {
			h := newHouse(t)
			if got := h.submit(t, as("ann@office.example"), from, c.body, "dora@partner.example"); (got == "") != c.ok {
				t.Errorf("<%s> %.80q: got %q, want accepted %v", from, c.body, got, c.ok)
			}
		}
	}
}

// Machines on trusted networks send as whom they like, on every port.
func TestTrustedWithoutLoginSendsAsAnybody(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"smtp", "submission"} {
		o := trusted
		o.Service = service
		h := newHouse(t)
		if got := h.submit(t, o, "dora@partner.example", "From: x@partner.example\r\n\r\n", "ann@office.example"); got != "" {
			t.Errorf("%s: %s", service, got)
		}
		o.User = "ann@office.example"
		if got := h.submit(t, o, "dora@partner.example", hello, "ann@office.example"); !strings.HasPrefix(got, "550") {
			t.Errorf("%s, logged in: %q", service, got)
		}
	}
}
