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
	lang := language(r.Language)
	b.WriteString(wrap(fmt.Sprintf(sayServer[lang], r.ReportingMTA)+" "+r.opening(o), ""))
	if !r.Stead.IsNull() {
		b.Reset()
		b.WriteString(wrap(fmt.Sprintf(sayServer[lang]+" "+r.whyStead()[lang], r.ReportingMTA, printable(r.Envelope.From.String(), relay.MaxPath)), ""))
		b.WriteString("\r\n" + wrap(r.opening(o), ""))
	}
	for _, res := range r.Results {
		name := "<" + printable(res.Rcpt.String(), relay.MaxPath) + ">"
		if orig := r.orig(res.Rcpt); orig != "" && !r.Stead.IsNull() {
			name += " (<" + orig + ">)"
		} else if orig != "" {
			name += " " + fmt.Sprintf(sayAlias[lang], orig)
		}
		b.WriteString("\r\n" + name + "\r\n")
		b.WriteString(wrap(r.sentences(res), "    "))
		b.WriteString(quote(res, lang))
	}
	fmt.Fprintf(&b, "\r\n"+sayNumber[lang]+"\r\n", r.Envelope.ID)
	return b.Bytes()
}

func (r Report) opening(o original) string {
	lang := language(r.Language)
	letter := sayLetter[lang]
	if !r.Stead.IsNull() {
		letter = sayIts[lang]
	}
	if o.subject != "" {
		letter += ` "` + o.subject + `"`
	}
	if !r.Envelope.Accepted.IsZero() {
		letter += " " + sayOf[lang] + " " + day(r.Envelope.Accepted, lang)
	}
	return letter + openings[r.kind()][lang]
}

func (r Report) subject() string {
	lang := language(r.Language)
	who := printable(r.Results[0].Rcpt.String(), 200)
	if n := len(r.Results); n > 1 {
		who = fmt.Sprintf(saySeveral[lang], number(n))
	}
	if !r.Stead.IsNull() {
		return fmt.Sprintf(saySteadSubject[lang], who)
	}
	return fmt.Sprintf(subjects[r.kind()][lang], who)
}

// whyStead says why somebody else than the sender reads the report.
func (r Report) whyStead() say {
	if r.Mute {
		return sayMute
	}
	return sayStead
}

// kind is one that there are words for.
func (r Report) kind() Kind {
	if _, known := subjects[r.Kind]; known {
		return r.Kind
	}
	return Failed
}

// sentences are the two: what happened and what to do.
func (r Report) sentences(res relay.Result) string {
	lang := language(r.Language)
	switch r.Kind {
	case Delivered:
		return sayArrived[lang]
	case Relayed, AfterAll:
		return sayTaken[lang]
	case Delayed:
		return r.delay()
	}
	if isExpired(res) {
		return fmt.Sprintf(sayTried[lang], r.duration(res.At)) + " " + sendLater[lang]
	}
	e := explain(res)
	return e.what[lang] + " " + e.todo[lang]
}

func (r Report) delay() string {
	lang := language(r.Language)
	s := sayDelay[lang]
	if !r.Until.IsZero() {
		s += fmt.Sprintf(sayUntil[lang], day(r.Until, lang))
	}
	if !r.Next.IsZero() {
		s += fmt.Sprintf(sayNext[lang], r.Next.Format(clock))
	}
	return s + ". " + sayWait[lang]
}

const clock = "15:04 MST"

// day is a date as people write it in their language.
func day(t time.Time, lang int) string {
	month := t.Month().String()
	if lang > 0 {
		month = months[lang][t.Month()-1]
	}
	return fmt.Sprintf(dates[lang], number(t.Day()), month, number(t.Year()), t.Format(clock))
}

// duration says how long we tried until at, with a leading blank, as far as it is known.
func (r Report) duration(at time.Time) string {
	if r.Envelope.Accepted.IsZero() || !at.After(r.Envelope.Accepted) {
		return ""
	}
	lang := language(r.Language)
	d := at.Sub(r.Envelope.Accepted)
	for _, u := range []struct {
		unit time.Duration
		name say
	}{{24 * time.Hour, sayDays}, {time.Hour, sayHour}, {time.Minute, sayMins}} {
		if n := int((d + u.unit/2) / u.unit); n > 1 {
			return fmt.Sprintf(sayFor[lang], number(n), u.name[lang])
		}
	}
	return ""
}

// quote is what the other server said, and who it was.
func quote(res relay.Result, lang int) string {
	text := strings.TrimSpace(printable(res.Reply.String(), maxQuote))
	if text == "" || res.Host == "" && res.Reply.OK() { // success needs no reason
		return ""
	}
	who := sayReason[lang]
	switch host := printable(res.Host, relay.MaxDomain); {
	case host != "" && res.Reply.Code == 0: // the words are ours: it did not speak
		who = host + ":"
	case host != "":
		who = fmt.Sprintf(saySaid[lang], host)
	}
	return wrap(who+" "+text, "    ")
}
