package intake

import (
	"net/mail"
	"strings"
	"testing"
)

func TestMailboxes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ field, want string }{
		{" ann@office.example\r\n", "ann@office.example"},
		{" Ann <ann@office.example>", "ann@office.example"},
		{` "Miller, Ann" <ann@office.example>, bob@b.example`, "ann@office.example bob@b.example"},
		{` "boss@office.example" <ann@office.example>`, "ann@office.example"},
		{" Ann Q. Miller <ann@office.example> (at home (mostly))", "ann@office.example"},
		{" =?utf-8?q?J=C3=BCrgen?= <j@office.example>", "j@office.example"},
		{" Jürgen\r\n <jürgen@office.example>", "jürgen@office.example"},
		{" ann @ office . example (who else)", "ann@office.example"},
		{" ann@office.example <ann@office.example>", "ann@office.example"},
		{` "a b"@office.example`, `"a b"@office.example`},
		{" <@relay.example,@b.example:ann@office.example>", "ann@office.example"},
		{" team: ann@office.example, Bob <bob@b.example>;", "ann@office.example bob@b.example"},
		{" undisclosed:;", ""},
		{" ann@[192.0.2.1]", "ann@[192.0.2.1]"},
		{" ann", "ann"},
		{" ,ann@office.example,,", "ann@office.example"},
		{"", ""},

		{" boss@office.example <ann@office.example>", "?"},
		{" Ann Miller", "?"},
		{" <ann@office.example> boss@office.example", "?"},
		{" <ann@office.example> <boss@office.example>", "?"},
		{" <>", "?"},
		{" <ann@office.example", "?"},
		{" ann@office.example>", "?"},
		{` "ann@office.example`, "?"},
		{" ann@office.example (", "?"},
		{` ann@office.example (\`, "?"},
		{" ann@office.example \x00", "?"},
		{" [ann@office.example", "?"},
		{" boss@office.example: ann@office.example;", "?"},
		{" <ann@office.example <boss@office.example>>", "?"},
		{` ann\@office.example`, "?"},
	} {
		found, ok := mailboxes(c.field)
		var texts []string
		for _, m := range found {
			texts = append(texts, m.text)
		}
		got := strings.Join(texts, " ")
		if !ok {
			got = "?"
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.field, got, c.want)
		}
	}
}

// Whatever another reader of such fields finds in one that we can read, we have found too: there
// is no address that only the receiver sees.
func FuzzMailboxes(f *testing.F) {
	for _, s := range []string{"Ann <ann@office.example>, b@c", `"a, b" <a@b>`, "g: a@b, c@d;", "a@b (c (d))", "<@x:a@b>", "a . b @ c", `"a\"b"@c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		found, ok := mailboxes(s)
		for _, m := range found {
			if m.start < 0 || m.start >= m.end || m.end > len(s) {
				t.Fatalf("%q: %+v is not in it", s, m)
			}
		}
		theirs, err := mail.ParseAddressList(s)
		if err != nil || !ok {
			return
		}
		ours := map[string]bool{}
		for _, m := range found {
			if a, err := m.address("home.example"); err == nil {
				ours[a.Local] = true
			}
		}
		for _, their := range theirs {
			local := their.Address[:strings.LastIndexByte(their.Address, '@')]
			if a, err := (mailbox{text: their.Address}).address("home.example"); err == nil && !ours[a.Local] && !ours[local] {
				t.Errorf("%q: net/mail sees %q, we see %v", s, their.Address, found)
			}
		}
	})
}
