package quota

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
	"unicode"

	"relayd/relay"
)

// maxSubject bounds a subject as it is shown, in characters.
const maxSubject = 100

// Subject makes the value of a Subject field fit to be shown: decoded (RFC 2047), on one line,
// without control and format characters.
func Subject(value string) string {
	var d mime.WordDecoder
	if text, err := d.DecodeHeader(value); err == nil {
		value = text
	}
	value = strings.ToValidUTF8(value, "?")
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, value)
	text := []rune(strings.Join(strings.Fields(clean), " "))
	if len(text) > maxSubject {
		return string(text[:maxSubject]) + "..."
	}
	return string(text)
}

// Notice is the letter to the postmaster about an account whose letters are held.
type Notice struct {
	ID       relay.ID
	Now      time.Time
	Hostname relay.Domain
	To       relay.Address
	Account  Account
	Client   string // where the letter came from that was held first; empty: not known
}

// Compose writes the letter with CRLF line ends.
func (n Notice) Compose() []byte {
	var b bytes.Buffer
	user := n.Account.User.String()
	fmt.Fprintf(&b, "From: \"relayd\" <postmaster@%s>\r\nTo: %s\r\n", n.Hostname, n.To)
	fmt.Fprintf(&b, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", "Held: the mail of "+user))
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s.held@%s>\r\n", n.Now.Format(time.RFC1123Z), n.ID, n.Hostname)
	b.WriteString("Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n")
	text := n.text()
	if strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
		b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
		w := quotedprintable.NewWriter(&b)
		_, _ = io.WriteString(w, text) // into memory
		_ = w.Close()
		return b.Bytes()
	}
	b.WriteString("\r\n" + strings.ReplaceAll(text, "\n", "\r\n"))
	return b.Bytes()
}

func (n Notice) text() string {
	var b strings.Builder
	user := n.Account.User.String()
	fmt.Fprintf(&b, "This is the mail server %s.\n\n%s.\n\n", n.Hostname, n.Account.Why)
	b.WriteString("This is what a stolen password looks like. From now on mail of this user to\n" +
		"other domains is accepted and held; nothing of it leaves before you decide.\n" +
		"Mail to people here is delivered. You are told once.\n\nThe subjects of the last messages:\n\n")
	for _, s := range n.Account.Subjects {
		if s == "" {
			s = "(no subject)"
		}
		b.WriteString("    " + s + "\n")
	}
	if n.Client != "" {
		fmt.Fprintf(&b, "\nThe last of them came from %s.\n", n.Client)
	}
	fmt.Fprintf(&b, `
To see what is held:

    relayctl queue ls --held --user %[1]s

If %[1]s wrote it, let it go and count from zero:

    relayctl user release %[1]s

If a thief did, change the password, throw the held mail away, and then let
the user write again:

    relayctl user passwd %[1]s
    relayctl user purge %[1]s
    relayctl user release %[1]s

The limits stand in [limits] and, for one user, in [users."%[1]s"].
`, user)
	return b.String()
}
