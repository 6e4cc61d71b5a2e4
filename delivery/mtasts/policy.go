package mtasts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// Bounds of a policy (RFC 8461 §3.2 and §3.3).
const (
	maxBody = 64 << 10 // octets
	maxAge  = 31557600 * time.Second
	maxMX   = 100
	maxID   = 32
)

// policy is a policy that was fetched, and holds for its Age.
type policy struct{ relay.STSPolicy }

// parse reads the text of a policy (RFC 8461 §3.2). Of a field that is there twice, mx excepted,
// the first counts; unknown fields are passed over.
func parse(text string) (policy, error) {
	var p policy
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return policy{}, errors.New("a line has no colon")
		}
		value = strings.TrimLeft(value, " \t")
		if name == "mx" {
			pattern, err := parsePattern(value)
			if err != nil {
				return policy{}, err
			}
			p.MX = append(p.MX, pattern)
		} else if _, twice := fields[name]; !twice {
			fields[name] = value
		}
	}
	var err error
	p.Mode = relay.STSMode(fields["mode"])
	p.Age, err = parseAge(fields["max_age"])
	switch {
	case err != nil:
	case fields["version"] != "STSv1":
		err = errors.New("the version is not STSv1")
	case p.Mode != relay.STSEnforce && p.Mode != relay.STSTesting && p.Mode != relay.STSNone:
		err = fmt.Errorf("the mode %.20q is unknown", fields["mode"])
	case len(p.MX) == 0 && p.Mode != relay.STSNone:
		err = errors.New("it names no mail host")
	case len(p.MX) > maxMX:
		err = fmt.Errorf("it names %d mail hosts", len(p.MX))
	}
	if err != nil {
		return policy{}, err
	}
	return p, nil
}

func parsePattern(s string) (string, error) {
	name, star := strings.CutPrefix(s, "*.")
	d, err := relay.ParseDomain(name)
	if err != nil || d.IsLiteral() {
		return "", fmt.Errorf("mx %.80q is not a host name", s)
	}
	if star {
		return "*." + string(d), nil
	}
	return string(d), nil
}

func parseAge(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || len(s) > 10 || s[0] == '+' {
		return 0, fmt.Errorf("max_age %.20q is not a number of seconds", s)
	}
	return time.Duration(min(n, uint64(maxAge/time.Second))) * time.Second, nil
}

// parseRecord finds the id of the policy in the TXT records of _mta-sts (RFC 8461 §3.1). Records
// of another kind are passed over; none, two, or one that is damaged mean that there is no policy.
func parseRecord(records []string) (id string, ok bool) {
	n := 0
	for _, r := range records {
		rest, ours := strings.CutPrefix(r, "v=STSv1")
		rest = strings.TrimLeft(rest, " \t")
		if !ours || !strings.HasPrefix(rest, ";") {
			continue
		}
		n++
		id, ok = parseID(rest[1:])
	}
	return id, ok && n == 1
}

func parseID(fields string) (string, bool) {
	for field := range strings.SplitSeq(fields, ";") {
		key, value, _ := strings.Cut(strings.Trim(field, " \t"), "=")
		if key != "id" {
			continue
		}
		alien := strings.ContainsFunc(value, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
		return value, value != "" && len(value) <= maxID && !alien
	}
	return "", false
}
