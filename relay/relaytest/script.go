package relaytest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MXScript says how a scripted MX behaves. The zero value takes every letter. Its text form has
// one sentence a line; `#` starts a comment:
//
//	host mx.partner.example           how it greets (default mx.test)
//	no ehlo|pipelining|8bitmime|smtputf8|size|enhancedstatuscodes
//	size 1000000                      what SIZE says
//	dsn                               offered
//	deliverby                         offered (RFC 2852)
//	lmtp                              LMTP is spoken (RFC 2033): LHLO, and at eom an answer for each recipient
//	requiretls                        offered under TLS
//	starttls                          offered, with a certificate made at the start
//	cert NAME|expired NAME            of a CA, where whoever runs the MX has one (default self-signed for host)
//	auth ann secret                   AUTH PLAIN and LOGIN offered (under TLS where there is starttls), and wanted before MAIL
//	[first N|after N] STAGE [PATTERN] ACTION
//
// STAGE is banner, ehlo, helo, starttls, handshake, mail, rcpt, data, body (once the text has
// begun), eom (after the final dot), rset, quit. PATTERN, with * for anything, is compared with
// the sender at mail, with the recipient at rcpt, and at data, body and eom with each accepted
// recipient; without it the rule is for all. `first N` ends a rule after N uses, counted for
// each address at mail and rcpt (greylisting), `after N` lets N pass before. The first rule that
// fits decides. ACTION is
//
//	550 5.1.1 no such user            a reply; \n in it starts another line; 421 also hangs up
//	drop                              hang up without a word
//	stall [5s]                        say nothing, for ever or so long, then go on
//	keep                              at eom: take the letter, then hang up before the 250
//	flood                             a reply that never ends
//	raw "250-x\r\n250 y\r\n"          these octets, in Go's notation
type MXScript struct {
	Host     string
	Without  []string // "ehlo", "pipelining", ...
	Size     int64
	StartTLS bool
	CertName string // for a certificate of a CA; empty: self-signed
	Expired  bool   // and that one has run out
	Auth     string // name, NUL, password
	DSN      bool
	// DeliverBy is offered (RFC 2852).
	DeliverBy bool
	LMTP      bool
	// RequireTLS is offered under TLS (RFC 8689).
	RequireTLS bool
	Rules      []MXRule
}

// MXRule is one rule of an MXScript.
type MXRule struct {
	Stage   string
	Pattern string // "" is for all
	First   int    // 0: no end
	After   int
	Action  MXAction
}

// MXAction is what a rule does.
type MXAction struct {
	Kind  string // reply, drop, stall, keep, flood, raw
	Code  int
	Text  string        // of a reply: its lines divided by LF; of raw: the octets
	Delay time.Duration // of a stall; 0: for ever
}

var (
	mxStages = []string{"banner", "ehlo", "helo", "starttls", "handshake", "mail", "rcpt", "data", "body", "eom", "rset", "quit"}
	mxTraits = []string{"ehlo", "pipelining", "8bitmime", "smtputf8", "size", "enhancedstatuscodes"}
)

// ParseMXScript reads the text form.
func ParseMXScript(text string) (MXScript, error) {
	var s MXScript
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.sentence(line); err != nil {
			return MXScript{}, fmt.Errorf("relaytest: script line %d: %w", n, err)
		}
	}
	return s, nil
}

func (s *MXScript) sentence(line string) (err error) {
	word, rest := cutWord(line)
	switch word {
	case "host":
		s.Host = rest
	case "no":
		if !slices.Contains(mxTraits, rest) {
			return fmt.Errorf("unknown trait %q", rest)
		}
		s.Without = append(s.Without, rest)
	case "requiretls":
		s.RequireTLS = true
	case "dsn":
		s.DSN = true
	case "deliverby":
		s.DeliverBy = true
	case "lmtp":
		s.LMTP = true
	case "size":
		s.Size, err = strconv.ParseInt(rest, 10, 64)
	case "starttls":
		if s.StartTLS = true; rest != "" {
			return s.rule(line)
		}
	case "cert":
		s.CertName = rest
		if s.CertName, s.Expired = strings.CutPrefix(rest, "expired "); s.CertName == "" {
			return fmt.Errorf("cert wants a name")
		}
	case "auth":
		name, password := cutWord(rest)
		s.Auth = name + "\x00" + password
	default:
		return s.rule(line)
	}
	return err
}

func (s *MXScript) rule(line string) error {
	var r MXRule
	word, rest := cutWord(line)
	if word == "first" || word == "after" {
		count, more := cutWord(rest)
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return fmt.Errorf("%s wants a number, got %q", word, count)
		}
		if word == "first" {
			r.First = n
		} else {
			r.After = n
		}
		word, rest = cutWord(more)
	}
	if !slices.Contains(mxStages, word) {
		return fmt.Errorf("unknown word %q", word)
	}
	r.Stage = word
	action, ok, err := parseAction(rest)
	if err != nil {
		return err
	}
	if !ok {
		r.Pattern, rest = cutWord(rest)
		if action, ok, err = parseAction(rest); err != nil {
			return err
		}
	}
	if !ok {
		return fmt.Errorf("unknown action %q", rest)
	}
	r.Action = action
	s.Rules = append(s.Rules, r)
	return nil
}

// parseAction says ok when text begins with an action.
func parseAction(text string) (a MXAction, ok bool, err error) {
	word, rest := cutWord(text)
	switch word {
	case "drop", "keep", "flood":
		return MXAction{Kind: word}, rest == "", nil
	case "stall":
		a = MXAction{Kind: word}
		if rest != "" {
			a.Delay, err = time.ParseDuration(rest)
		}
		return a, true, err
	case "raw":
		a = MXAction{Kind: word}
		a.Text, err = strconv.Unquote(rest)
		return a, true, err
	}
	code, err := strconv.Atoi(word)
	if err != nil || code < 200 || code > 599 {
		return MXAction{}, false, nil
	}
	return MXAction{Kind: "reply", Code: code, Text: strings.ReplaceAll(rest, `\n`, "\n")}, true, nil
}

func cutWord(s string) (word, rest string) {
	word, rest, _ = strings.Cut(s, " ")
	return word, strings.TrimSpace(rest)
}

// matches says whether the rule is for any of the addresses. No address at all is only for rules
// without a pattern.
func (r MXRule) matches(addresses []string) bool {
	if r.Pattern == "" || r.Pattern == "*" {
		return true
	}
	glob := regexp.MustCompile("(?i)^" + strings.ReplaceAll(regexp.QuoteMeta(r.Pattern), `\*`, ".*") + "$")
	return slices.ContainsFunc(addresses, glob.MatchString)
}

func (s MXScript) without(trait string) bool { return slices.Contains(s.Without, trait) }

func (s MXScript) host() string {
	if s.Host == "" {
		return "mx.test"
	}
	return s.Host
}
