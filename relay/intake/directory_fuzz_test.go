package intake_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
)

// FuzzClassify: whatever a stranger writes into RCPT TO, it is refused, or it goes to mailboxes
// that exist and to foreign addresses that an alias of the operator's names. Never an open relay.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{
		"<ann@office.example>", "<sales@office.example>", "<x%y.example@office.example>", `<"x@y.example"@office.example>`, "<@a,@b:x@y.example>",
		"<ann@[198.51.100.1]>", "<x@y.example@office.example>", "<y.example!x@office.example>", "<postmaster>", "<ann@ｏｆｆｉｃｅ.example>", "<ann+x@mail.office.example.>",
	} {
		f.Add(s)
	}
	d := office()
	f.Fuzz(func(t *testing.T, path string) {
		to, err := relay.ParsePath(path, true)
		if err != nil || to.IsNull() {
			return
		}
		found, err := d.Classify(stranger, to)
		if failure, ok := errors.AsType[*relay.Failure](err); err != nil && (!ok || !failure.Reply.Permanent()) {
			t.Fatalf("%q: %v", path, err)
		}
		if (err == nil) != (len(found) > 0) {
			t.Fatalf("%q: %v, %v", path, found, err)
		}
		for _, r := range found {
			checkPlace(t, d, path, r)
		}
	})
}

func checkPlace(t *testing.T, d *intake.Directory, path string, r relay.Recipient) {
	t.Helper()
	if r.Mailbox.IsNull() {
		if !slices.Contains([]string{"dora@partner.example", "ann@elsewhere.example"}, r.Addr.String()) {
			t.Errorf("%q is relayed to %s", path, r.Addr)
		}
		return
	}
	mailbox, exists := d.Users.Mailbox(r.Mailbox)
	if _, ours := d.Domains[r.Mailbox.Domain]; !ours || !exists && !strings.EqualFold(r.Mailbox.Local, "postmaster") || exists && mailbox != r.Mailbox {
		t.Errorf("%q goes into %s, %v", path, r.Mailbox, exists)
	}
	if strings.ContainsAny(r.Addr.String(), "\r\n\x00") {
		t.Errorf("%q is delivered for %q", path, r.Addr)
	}
}
