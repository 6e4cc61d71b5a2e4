package intake

import (
	"strings"

	"relayd/relay"
)

// mailbox is one address of a From, To or similar field (RFC 5322 §3.4): where it stands in the
// field's value, and what it is there without comments, folds and blanks. A name that stands
// without a domain is such a text without an @.
type mailbox struct {
	start, end int
	text       string
}

// address is the mailbox as an Address. A name without a domain is one of home.
func (m mailbox) address(home relay.Domain) (relay.Address, error) {
	if !strings.Contains(m.text, "@") {
		return relay.ParseAddress(m.text+"@"+string(home), true)
	}
	return relay.ParseAddress(m.text, true)
}

// mailboxes finds the addresses of a field's value. ok is false where somebody who reads the field
// might see another address than we do: then nothing of it can be relied on. Names in phrases,
// comments and groups are passed over; display names say nothing about who may write.
func mailboxes(value string) (found []mailbox, ok bool) {
	s := fieldScanner{text: value}
	for {
		m, sep, ok := s.mailbox()
		switch {
		case !ok:
			return nil, false
		case m.text != "":
			found = append(found, m)
		}
		if sep == 0 {
			return found, true
		}
	}
}

// fieldScanner goes through a structured field, token by token (RFC 5322 §3.2).
type fieldScanner struct {
	text string
	pos  int
}

// token is an atom, a quoted string, a domain literal or one of the specials. text keeps its
// quotes. kind is 'a' for an atom, '"', '[', or the special itself; 0 at the end.
type token struct {
	kind       byte
	text       string
	start, end int
}

const fieldSpecials = "()<>[]:;@,\"\\"

// next skips blanks and comments. ok is false where a quote, a comment or a literal does not end.
func (s *fieldScanner) next() (token, bool) {
	if !s.skip() {
		return token{}, false
	}
	start := s.pos
	if start == len(s.text) {
		return token{start: start, end: start}, true
	}
	c := s.text[start]
	switch {
	case c == '"':
		return s.delimited('"', '"')
	case c == '[':
		return s.delimited('[', ']')
	case c == ')' || c == ']' || c == '\\' || c < ' ' || c == 0x7f:
		return token{}, false
	case strings.IndexByte(fieldSpecials, c) >= 0:
		s.pos++
		return token{c, s.text[start:s.pos], start, s.pos}, true
	}
	for s.pos < len(s.text) && s.text[s.pos] > ' ' && s.text[s.pos] != 0x7f && strings.IndexByte(fieldSpecials, s.text[s.pos]) < 0 {
		s.pos++
	}
	return token{'a', s.text[start:s.pos], start, s.pos}, true
}

// skip passes over blanks, line ends and comments, which nest.
func (s *fieldScanner) skip() bool {
	depth := 0
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '(':
			depth++
		case depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return true
		case depth > 0 && c == ')':
			depth--
		case depth > 0 && c == '\\':
			s.pos++
		}
	}
	return depth == 0
}

// delimited reads a quoted string or a domain literal.
func (s *fieldScanner) delimited(kind, last byte) (token, bool) {
	start := s.pos
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch s.text[s.pos] {
		case '\\':
			s.pos++
		case last:
			s.pos++
			return token{kind, s.text[start:s.pos], start, s.pos}, true
		}
	}
	return token{}, false
}

// mailbox reads up to the next separator, which is 0 at the end of the field. m is empty for an
// empty element, a group's name and a group without members.
func (s *fieldScanner) mailbox() (m mailbox, sep byte, ok bool) {
	var bare []token // what stands outside angle brackets
	angled := false
	for {
		t, ok := s.next()
		if !ok {
			return mailbox{}, 0, false
		}
		switch t.kind {
		case 'a', '"', '[', '@':
			bare = append(bare, t)
			if angled { // nothing follows <...>
				return mailbox{}, 0, false
			}
		case '<':
			if angled {
				return mailbox{}, 0, false
			}
			if m, ok = s.angled(); !ok || contradicts(bare, m) {
				return mailbox{}, 0, false
			}
			angled, bare = true, nil
		case ':': // what came before it was the name of a group (RFC 5322 §3.4)
			if angled || holdsAt(bare) {
				return mailbox{}, 0, false
			}
			return mailbox{}, t.kind, true
		case 0, ',', ';':
			if !angled {
				m, ok = joined(bare)
			}
			return m, t.kind, ok
		default:
			return mailbox{}, 0, false
		}
	}
}

// angled reads what stands between < and >, of which an obsolete source route is no part.
func (s *fieldScanner) angled() (mailbox, bool) {
	var inside []token
	for {
		t, ok := s.next()
		switch {
		case !ok:
			return mailbox{}, false
		case t.kind == '>':
			m, ok := joined(inside)
			return m, ok && m.text != ""
		case t.kind == ':':
			inside = nil
		case t.kind == ',' && len(inside) > 0 && inside[0].kind == '@':
			inside = nil
		case t.kind != 'a' && t.kind != '"' && t.kind != '[' && t.kind != '@':
			return mailbox{}, false
		default:
			inside = append(inside, t)
		}
	}
}

// joined makes one address of its tokens. Blanks may stand around dots and the @ and nowhere else
// (RFC 5322 §4.4): "ann miller" is no address.
func joined(tokens []token) (mailbox, bool) {
	if len(tokens) == 0 {
		return mailbox{}, true
	}
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 && !joins(tokens[i-1], t) {
			return mailbox{}, false
		}
		b.WriteString(t.text)
	}
	return mailbox{tokens[0].start, tokens[len(tokens)-1].end, b.String()}, true
}

func joins(a, b token) bool {
	return a.kind == '@' || b.kind == '@' || strings.HasSuffix(a.text, ".") || strings.HasPrefix(b.text, ".")
}

// contradicts says whether the name in front of <...> is itself an address, and another one. Some
// programs repeat the address there; whoever writes a different one means to deceive.
func contradicts(name []token, m mailbox) bool {
	if !holdsAt(name) {
		return false
	}
	same, ok := joined(name)
	return !ok || !strings.EqualFold(same.text, m.text)
}

func holdsAt(tokens []token) bool {
	for _, t := range tokens {
		if t.kind == '@' {
			return true
		}
	}
	return false
}
