package ctl

import "strings"

// mailArgs is the command line of sendmail, as programs have written it for forty years.
type mailArgs struct {
	config, dataDir string
	json, help      bool

	from       string // "<>" is the null path
	name       string
	fromHeader bool // -t
	wholeInput bool // -i: a lone dot is text
	verbose    bool
	rcpts      []string
}

// The options of sendmail that we have no use for and that programs give all the same: those
// that take a value, in the same word or the next, and those that do not.
const (
	valuedOptions = "BfrFhLNoOpRVXAC"
	plainOptions  = "itvUGnmx"
)

// parseMailArgs reads the command line of sendmail, with relayctl's own long flags before it.
func parseMailArgs(args []string) (m mailArgs, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			m.rcpts, args = append(m.rcpts, args...), nil
		case strings.HasPrefix(arg, "--"):
			args, err = m.long(arg, args)
		case len(arg) > 1 && arg[0] == '-':
			args, err = m.short(arg[1:], args)
		default:
			m.rcpts = append(m.rcpts, arg)
		}
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// long reads one of relayctl's flags.
func (m *mailArgs) long(arg string, rest []string) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	switch name {
	case "--json":
		m.json = true
		return rest, nil
	case "--help":
		m.help = true
		return rest, nil
	case "--config", "--data-dir":
	default:
		return nil, usage("", "sendmail has no %q", name)
	}
	if !has {
		if len(rest) == 0 {
			return nil, usage("", "%s needs a value", name)
		}
		value, rest = rest[0], rest[1:]
	}
	if name == "--config" {
		m.config = value
	} else {
		m.dataDir = value
	}
	return rest, nil
}

// short reads a word of options without its dash.
func (m *mailArgs) short(word string, rest []string) ([]string, error) {
	for word != "" {
		c := word[0]
		word = word[1:]
		switch {
		case strings.IndexByte(plainOptions, c) >= 0:
			m.plain(c)
		case c == 'b':
			if word != "m" {
				return nil, usage("relayctl queue ls shows the queue, and relayd serves SMTP itself", "sendmail does not do -b%s here", word)
			}
			return rest, nil
		case c == 'h' && word == "":
			m.help = true
		case strings.IndexByte(valuedOptions, c) >= 0:
			value := word
			if value == "" {
				if len(rest) == 0 {
					return nil, usage("", "-%c needs a value", c)
				}
				value, rest = rest[0], rest[1:]
			}
			m.valued(c, value)
			return rest, nil
		case c == 'e': // -em, -ep, -eq: how to tell of errors; -oe is the same
			return rest, nil
		default:
			return nil, usage("relayctl sendmail --help shows what there is", "sendmail has no -%c here", c)
		}
	}
	return rest, nil
}

func (m *mailArgs) plain(c byte) {
	switch c {
	case 't':
		m.fromHeader = true
	case 'i':
		m.wholeInput = true
	case 'v':
		m.verbose = true
	}
}

func (m *mailArgs) valued(c byte, value string) {
	switch c {
	case 'f', 'r':
		if m.from = value; value == "" {
			m.from = "<>"
		}
	case 'F':
		m.name = value
	case 'C':
		m.config = value
	case 'o':
		if value == "i" {
			m.wholeInput = true
		}
	case 'O':
		if strings.EqualFold(value, "IgnoreDots") || strings.EqualFold(value, "IgnoreDots=true") {
			m.wholeInput = true
		}
	}
}

// addressesIn are the addresses of a To, Cc or Bcc field, also names without a domain. Comments,
// display names and the names of groups are passed over.
func addressesIn(value string) (all []string) {
	s := addressScanner{}
	for i := 0; i < len(value); i++ {
		i += s.step(value[i:])
	}
	s.end()
	return s.found
}

// addressScanner goes through the field an octet at a time (RFC 5322 §3.4).
type addressScanner struct {
	found         []string
	text          strings.Builder // outside of angle brackets
	angle         string
	inAngle       bool
	quoted        bool
	comments      int
	angleTextFrom int
}

// step looks at the first octet and says how many more it used up.
func (s *addressScanner) step(rest string) (used int) {
	c := rest[0]
	switch {
	case c == '\\' && (s.quoted || s.comments > 0) && len(rest) > 1:
		if s.quoted {
			s.text.WriteString(rest[:2])
		}
		return 1
	case s.comments > 0:
		if c == '(' {
			s.comments++
		} else if c == ')' {
			s.comments--
		}
	case c == '"':
		s.quoted = !s.quoted
		s.text.WriteByte(c)
	case s.quoted:
		s.text.WriteByte(c)
	case c == '(':
		s.comments++
	case c == '<':
		s.inAngle, s.angleTextFrom = true, s.text.Len()
	case c == '>' && s.inAngle:
		s.angle, s.inAngle = s.text.String()[s.angleTextFrom:], false
	case c == ':' && !s.inAngle: // the name of a group
		s.text.Reset()
	case (c == ',' || c == ';') && !s.inAngle:
		s.end()
	default:
		s.text.WriteByte(c)
	}
	return 0
}

func (s *addressScanner) end() {
	a := s.angle
	if a == "" {
		a = s.text.String()
	}
	if a = strings.Join(strings.Fields(a), ""); a != "" {
		s.found = append(s.found, a)
	}
	s.text.Reset()
	s.angle, s.inAngle = "", false
}
