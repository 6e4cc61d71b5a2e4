package dsn

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"relayd/relay"
)

// maxQuote bounds a remote's words in the part for people, in octets.
const maxQuote = 4000

// human is the part for people: an opening line, then for each recipient what happened, what to
// do, and what the other server said.
func (r Report) human(o original) []byte {
	var b bytes.Buffer
	b.WriteString(wrap("This is the mail server "+string(r.ReportingMTA)+". "+r.opening(o), ""))
	for _, res := range r.Results {
		name := "<" + printable(res.Rcpt.String(), relay.MaxPath) + ">"
		if orig := r.orig(res.Rcpt); orig != "" {
			name += " (you wrote to <" + orig + ">)"
		}
		b.WriteString("\r\n" + name + "\r\n")
		b.WriteString(wrap(r.sentences(res), "    "))
		b.WriteString(quote(res))
	}
	fmt.Fprintf(&b, "\r\nNumber of the message here: %s\r\n", r.Envelope.ID)
	return b.Bytes()
}

func (r Report) opening(o original) string {
	letter := "Your message"
	if o.subject != "" {
		letter += ` "` + o.subject + `"`
	}
	if !r.Envelope.Accepted.IsZero() {
		letter += " of " + r.Envelope.Accepted.Format("2 January 2006, 15:04 MST")
	}
	switch r.Kind {
	case Delayed:
		return letter + " has not been delivered yet to:"
	case Delivered:
		return letter + " was delivered to:"
	case Relayed:
		return letter + " was passed on to a server that sends no reports of its own, for:"
	case AfterAll:
		return letter + ", which was delayed, has now been delivered to the mail server of:"
	}
	return letter + " could not be delivered to:"
}

// sentences are the two: what happened and what to do.
func (r Report) sentences(res relay.Result) string {
	switch r.Kind {
	case Delivered:
		return "The message is in the mailbox or with the server in charge of it. There is nothing for you to do."
	case Relayed, AfterAll:
		return "The next server took the message. There is nothing for you to do."
	case Delayed:
		return r.delay()
	}
	e := explain(res)
	if isExpired(res) {
		e = explanation{"We tried" + r.duration(res.At) + " without success and have given up.", sendLater}
	}
	return e.what + " " + e.todo
}

func (r Report) delay() string {
	s := "We could not deliver the message so far and keep trying"
	if !r.Until.IsZero() {
		s += " until " + r.Until.Format("2 January 2006, 15:04 MST")
	}
	if !r.Next.IsZero() {
		s += ", next at about " + r.Next.Format("15:04 MST")
	}
	return s + ". There is nothing for you to do; do not send it again."
}

// duration says how long we tried until at, with a leading " for", as far as it is known.
func (r Report) duration(at time.Time) string {
	if r.Envelope.Accepted.IsZero() || !at.After(r.Envelope.Accepted) {
		return ""
	}
	d := at.Sub(r.Envelope.Accepted)
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int((d + u.unit/2) / u.unit); n > 1 {
			return fmt.Sprintf(" for %d %ss", n, u.name)
		}
	}
	return ""
}

// quote is what the other server said, and who it was.
func quote(res relay.Result) string {
	text := strings.TrimSpace(printable(res.Reply.String(), maxQuote))
	if text == "" {
		return ""
	}
	who := "Reason:"
	switch host := printable(res.Host, relay.MaxDomain); {
	case host != "" && res.Reply.Code == 0: // the words are ours: it did not speak
		who = host + ":"
	case host != "":
		who = host + " said:"
	}
	return wrap(who+" "+text, "    ")
}
