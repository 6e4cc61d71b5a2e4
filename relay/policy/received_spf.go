package policy

import (
	"strings"

	"relayd/relay"
)

// spfSender is what SPF was asked about, and its result.
type spfSender struct {
	letter   Letter
	identity string // "mailfrom", "helo"
	result   Result
}

// ReceivedSPF is the Received-SPF field (RFC 7208 §9.1) as receiver writes it, with its line end: of MAIL
// FROM or, where that is null, of HELO. It says no more than Authentication-Results does, for programs
// that know only this.
func (f Findings) ReceivedSPF(receiver relay.Domain) string {
	s := f.sender
	words := []string{string(s.result), "(" + comment(string(receiver)+": "+spfMeaning(s.result)) + ")",
		"client-ip=" + spfValue(s.letter.Client.String()) + ";"}
	if !s.letter.From.IsNull() {
		words = append(words, "envelope-from="+quoted(s.letter.From.String())+";")
	}
	words = append(words, "helo="+spfValue(s.letter.Helo)+";", "receiver="+string(receiver)+";", "identity="+s.identity)
	var b strings.Builder
	b.WriteString("Received-SPF:")
	fold(&b, words)
	return b.String() + "\r\n"
}

// spfMeaning is a result in words.
func spfMeaning(r Result) string {
	switch r {
	case Pass:
		return "the domain lets this client send"
	case Fail:
		return "the domain does not let this client send"
	case SoftFail:
		return "the domain probably does not let this client send"
	case Neutral:
		return "the domain does not say whether this client may send"
	case TempError:
		return "the DNS could not be asked"
	case PermError:
		return "the record of the domain is broken"
	}
	return "the domain has no SPF record"
}

// spfValue is a dot-atom where it can be one, and in quotes otherwise.
func spfValue(s string) string {
	plain := s != "" && len(s) <= maxValue && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "..") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"[]", r) })
	if plain {
		return s
	}
	return quoted(s)
}
