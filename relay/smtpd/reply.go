package smtpd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"relayd/relay"
)

// maxReplyText keeps a reply line within 512 octets, CR LF and codes included (RFC 5321
// §4.5.3.1.5).
const maxReplyText = 480

// What whole connections are refused with.
const (
	busyAll     = "too many connections here at the moment, please try again later"
	busyAddress = "too many connections from your address, please use fewer at once"
)

// The replies that do not depend on anything.
var (
	replyOK          = say(250, "2.0.0", "ok")
	replySender      = say(250, "2.1.0", "sender ok")
	replyRecipient   = say(250, "2.1.5", "recipient ok")
	replyStart       = relay.Reply{Code: 354, Text: "go ahead, end with a lone dot: <CR><LF>.<CR><LF>"}
	replyLoggedIn    = say(235, "2.7.0", "logged in")
	replyStartTLS    = say(220, "2.0.0", "ready to start TLS")
	replyUnknown     = say(451, "4.3.0", "something went wrong here, please try again later")
	replyHello       = say(503, "5.5.1", "say EHLO first")
	replyNoMail      = say(503, "5.5.1", "say MAIL FROM first")
	replyNeedsBdat   = say(503, "5.5.1", "a letter of BODY=BINARYMIME comes by BDAT")
	replyNoRcpt      = say(503, "5.5.1", "say RCPT TO first")
	replyNoValidRcpt = say(554, "5.5.1", "no valid recipients")
	replyNested      = say(503, "5.5.1", "a letter is already under way: send it, or say RSET")
	replyMidChunk    = say(503, "5.5.1", "a letter is under way: end it with BDAT LAST, or say RSET")
	replyNoCommand   = say(500, "5.5.2", "I do not know this command, try HELP")
	replyNotHere     = say(502, "5.5.1", "this command is not implemented here")
	replyNoArgument  = say(501, "5.5.4", "this command takes no argument")
	replyLineLong    = say(500, "5.5.2", "the command line is too long")
	replyBareLF      = say(500, "5.5.2", "end commands with CR LF, not with a bare LF (nc -C and curl do)")
	replyControl     = say(500, "5.5.2", "a command cannot contain a NUL or a bare CR")
	replyTooLarge    = say(552, "5.3.4", "the message is larger than we take")
	replyBadSize     = say(501, "5.5.4", "SIZE takes a number of octets")
	replyBadChunk    = say(501, "5.5.4", "BDAT takes a number of octets and perhaps LAST; closing, as what follows cannot be told from commands")
	replyNotHTTP     = say(421, "4.7.0", "this is a mail server, it does not speak HTTP")
	replyNotTLS      = say(421, "4.7.0", "TLS starts with STARTTLS on this port")
	replyErrors      = say(421, "4.7.0", "too many errors, closing")
	replyChatter     = say(421, "4.7.0", "too many commands without a letter, closing")
	replyLogins      = say(421, "4.7.0", "too many failed logins, closing")
	replyTimeout     = say(421, "4.4.2", "I waited too long for you, closing")
	replyStopping    = say(421, "4.3.2", "the server is stopping, please try again in a moment")
	replyBroken      = say(421, "4.3.0", "something went wrong here, please try again later")
)

func say(code int, status, text string) relay.Reply {
	s, ok := relay.ParseStatus(status)
	if !ok {
		panic("smtpd: malformed status " + status)
	}
	return relay.Reply{Code: code, Status: s, Text: text}
}

// replyTo turns an error into what a stranger may hear: the Reply of a *relay.Failure wherever it
// is wrapped, and for everything else a bland temporary refusal. known says which it was.
func replyTo(err error) (r relay.Reply, known bool) {
	f, ok := errors.AsType[*relay.Failure](err)
	if !ok {
		return replyUnknown, false
	}
	r = f.Reply
	if r.Code < 400 || r.Code > 599 {
		// An error that says "fine" is a mistake of ours, and the letter was not taken.
		return replyUnknown, false
	}
	if r.Status[0] != r.Code/100 {
		r.Status = relay.Status{r.Code / 100, 0, 0}
	}
	return r, true
}

// engineError is what go-smtp has to hear so that it does not go on; the client hears the
// guard's own reply.
func engineError(r relay.Reply) *smtp.SMTPError {
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode(r.Status), Message: "refused"}
}

// appendReply writes a reply as it goes on the wire, every line with its code and status
// (RFC 2034 §4). Whatever is in the text, it cannot begin a line of its own.
func appendReply(out []byte, r relay.Reply, utf8OK bool) []byte {
	for text := r.Text; ; {
		line, rest, more := strings.Cut(text, "\n")
		out = strconv.AppendInt(out, int64(r.Code), 10)
		if more {
			out = append(out, '-')
		} else {
			out = append(out, ' ')
		}
		if r.Status != (relay.Status{}) {
			out = append(append(out, r.Status.String()...), ' ')
		}
		out = append(appendText(out, line, utf8OK), '\r', '\n')
		if text = rest; !more {
			return out
		}
	}
}

// appendText leaves out what a reply line cannot carry (RFC 5321 §4.2; RFC 6531 §3.7.4 for
// what is not ASCII).
func appendText(out []byte, line string, utf8OK bool) []byte {
	if len(line) > maxReplyText {
		line = line[:maxReplyText]
	}
	for _, c := range line {
		switch {
		case c < ' ' || c == 0x7f || c == utf8.RuneError || c >= 0x80 && (!utf8OK || c < 0xa0):
			out = append(out, '?')
		default:
			out = utf8.AppendRune(out, c)
		}
	}
	return out
}

// badAddress is the refusal of a path that is no address, for MAIL (x.1.7) or RCPT (x.1.3).
func badAddress(err error, status string) relay.Reply {
	switch {
	case errors.Is(err, relay.ErrNeedsUTF8):
		// RFC 6531 §3.5.
		return say(553, "5.6.7", err.Error())
	case errors.Is(err, relay.ErrAddressSyntax), errors.Is(err, relay.ErrDomainEmpty):
		return say(501, status, err.Error())
	}
	return say(553, status, err.Error())
}

func (b badness) refusal() error {
	what := map[badness]string{
		bareCRFound: "a bare CR (a carriage return without a line feed)",
		bareLFFound: "a bare LF (a line feed without a carriage return)",
		nulFound:    "a NUL character",
	}[b]
	return relay.Refuse("smtpd: data", 550, "5.6.0", "the message contains "+what+", which mail cannot carry: RFC 5321 section 2.3.8 wants CR LF line ends")
}

func tooManyRecipients(n int) relay.Reply {
	return say(452, "4.5.3", fmt.Sprintf("we take %d recipients a letter: send the rest in another", n))
}
