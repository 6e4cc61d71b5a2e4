package intake

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"relayd/relay"
)

// Device is what the clients of one device listener may do: machines that cannot be taught who
// they are. Being in the listener's networks, or logging in there, lets them reach the recipients
// here and nobody else.
type Device struct {
	// Sender takes the place of MAIL FROM and of From; null: theirs stay, and those of a login are
	// checked as on any other port.
	Sender relay.Address
	Login  bool // nothing goes without a login
	// Anybody, or else Recipients, normalised, of which the local part "*" stands for all of a
	// domain; without any, the addresses in domains of ours.
	Anybody    bool
	Recipients []relay.Address
}

// device is the listener a letter came in by; nil for every other service.
func (s *Settings) device(o relay.Origin) *Device {
	if d, ok := s.Devices[o.Service]; ok {
		return &d
	}
	return nil
}

// classify resolves a recipient by the rules of the service it was named to.
func (s *Settings) classify(o relay.Origin, to relay.Address) ([]relay.Recipient, error) {
	if d := s.device(o); d != nil {
		return d.classify(s.Directory, o, to)
	}
	return s.Directory.Classify(o, to)
}

// checkSender refuses a reverse-path that is not the login's own, unless the operator wrote it.
func (s *Settings) checkSender(o relay.Origin, from relay.Address) error {
	if s.device(o).rewritten() {
		return nil
	}
	return s.Directory.checkSender(o, from)
}

// begin checks and rewrites what a device says of itself at MAIL. Neither [trust] nor a login lets
// it go further than its own list of recipients, so its Origin is not trusted.
func (d *Device) begin(o *relay.Origin, from *relay.Address) error {
	o.Trusted = false
	if d.Login && o.User == "" {
		return relay.Refuse("intake: begin", 530, "5.7.0", "log in first")
	}
	if !d.Sender.IsNull() {
		*from = d.Sender
	}
	return nil
}

// classify resolves a recipient of a device.
func (d *Device) classify(dir *Directory, o relay.Origin, to relay.Address) ([]relay.Recipient, error) {
	if !d.mayReach(dir, o, to) {
		return nil, relay.Refuse("intake: classify", 550, "5.7.1", "devices may not write to "+to.String()+" here")
	}
	o.Trusted = true
	return dir.Classify(o, to)
}

func (d *Device) mayReach(dir *Directory, o relay.Origin, to relay.Address) bool {
	domain, ours := dir.ours(o, to)
	if d.Anybody || len(d.Recipients) == 0 {
		return d.Anybody || ours
	}
	if ours {
		to.Domain = domain
	}
	list := Grant{Addresses: d.Recipients}
	normal, _ := dir.Users.Mailbox(to)
	if list.covers(normal) {
		return true
	}
	base, _, tagged := strings.Cut(normal.Local, dir.Delimiter)
	return ours && tagged && dir.Delimiter != "" && list.covers(relay.Address{Local: base, Domain: domain})
}

// rewritten says whether From is to be replaced.
func (d *Device) rewritten() bool { return d != nil && !d.Sender.IsNull() }

// deviceMissing is what programs in devices leave out beside what all programs do: a subject, and
// the fields of MIME without which nobody knows how to read what is not ASCII. text is the
// beginning of the body.
func (y *tidying) deviceMissing(text []byte) string {
	var b strings.Builder
	if !y.seen["subject"] {
		fmt.Fprintf(&b, "Subject: from the device at %s\r\n", client(y.env.Origin))
	}
	if !y.seen["mime-version"] {
		b.WriteString("MIME-Version: 1.0\r\n")
	}
	if y.seen["content-type"] {
		return b.String()
	}
	b.WriteString("Content-Type: text/plain; charset=" + charset(text) + "\r\n")
	if !y.seen["content-transfer-encoding"] {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	return b.String()
}

// charset guesses the character set of a text from its beginning: UTF-8, of which ASCII is a
// part, or else what such machines had before.
func charset(text []byte) string {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		// The last character may be cut.
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				text = text[:len(text)-n]
			}
			break
		}
	}
	if utf8.Valid(text) {
		return "utf-8"
	}
	return "iso-8859-1"
}
