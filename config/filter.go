package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The kinds of Filter.
const (
	FilterRspamd = "rspamd"
	FilterClamd  = "clamd"
	FilterMilter = "milter"
)

// Filter is one program that is shown letters when they have come in whole.
type Filter struct {
	Kind        string // FilterRspamd, FilterClamd or FilterMilter
	Name        string // unique; the kind, or what a milter is called
	Address     string // "host:port" or "unix:/path"
	Timeout     time.Duration
	Defer       bool  // while it is down letters are refused with 451; otherwise they pass
	MaxSize     int64 // octets; a larger letter is not shown
	Submissions bool  // the letters of our own people are shown too
}

// The values of when_down.
const (
	acceptWhenDown = "accept"
	deferWhenDown  = "defer"
)

// maxFilterTimeout leaves time for all else within the ten minutes a client waits for our answer (RFC
// 5321 §4.5.3.2.6). One that has given up sends the letter again, and again its recipients get a copy.
const maxFilterTimeout = 5 * time.Minute

// filters reads [filter.rspamd], [filter.clamd] and the [[filter.milter]] tables.
func (r *reader) filters(s section, c *Config, folder string) {
	for _, f := range []Filter{
		{Kind: FilterRspamd, Timeout: 30 * time.Second, MaxSize: 50_000_000},
		{Kind: FilterClamd, Timeout: time.Minute, Defer: true, MaxSize: 25_000_000, Submissions: true},
	} {
		f.Name = f.Kind
		t := s.sub(f.Kind)
		present := s.t.get(f.Kind) != nil
		if r.filter(t, &f, folder, present) && present {
			c.Filters = append(c.Filters, f)
		}
	}
	if s.t.get(FilterRspamd) == nil {
		for _, at := range r.scores {
			r.warn(at, "", "there is no [filter.rspamd] to give letters a score, so junk_score changes nothing")
		}
	}
	tables(s, FilterMilter, c, func(t section, c *Config) { r.milter(t, c, folder) })
}

// milter reads one of them. Without a Config it only makes the names known.
func (r *reader) milter(s section, c *Config, folder string) {
	f := Filter{Kind: FilterMilter, Name: FilterMilter, Timeout: 30 * time.Second, Defer: true, MaxSize: 50_000_000}
	at, named := one(s, "name", &f.Name, readFilterName)
	ok := r.filter(s, &f, folder, c != nil)
	if c == nil {
		return
	}
	taken := func(name string) bool {
		for _, other := range c.Filters {
			if other.Name == name {
				return true
			}
		}
		return false
	}
	if named && (taken(f.Name) || f.Name == FilterRspamd || f.Name == FilterClamd) {
		r.complain(at, wrong("", "another filter is called %q", f.Name))
		return
	}
	for n := 2; taken(f.Name); n++ {
		f.Name = fmt.Sprintf("milter%d", n)
	}
	if ok {
		c.Filters = append(c.Filters, f)
	}
}

// filter reads what all of them have; false: something that it needs is wrong.
func (r *reader) filter(s section, f *Filter, folder string, present bool) bool {
	_, hasAddress := one(s, "address", &f.Address, readProgram)
	if at, _ := one(s, "timeout", &f.Timeout, readDuration); f.Timeout > maxFilterTimeout {
		r.complain(at, wrong("a minute is plenty; what the program has not seen by then is for when_down",
			"timeout is %s, and mail servers would not wait so long for our answer: %s is the most", inWords(f.Timeout), inWords(maxFilterTimeout)))
	}
	down := acceptWhenDown
	if f.Defer {
		down = deferWhenDown
	}
	one(s, "when_down", &down, readWord(acceptWhenDown, deferWhenDown))
	f.Defer = down == deferWhenDown
	one(s, "max_size", &f.MaxSize, readSize)
	one(s, "submissions", &f.Submissions, readBool)
	if present && s.t.get("address") == nil {
		r.complain(s.t.at, wrong(`add a line such as address = "127.0.0.1:11333", or address = "unix:/run/filter.sock"`,
			"this filter does not say where it listens"))
	}
	if path, ok := strings.CutPrefix(f.Address, "unix:"); ok {
		f.Address = "unix:" + absolute(folder, filepath.Clean(path))
	}
	return hasAddress
}

// readProgram reads where a program listens: "host:port", or "unix:" and the path of a socket.
func readProgram(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil {
		return "", err
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" || strings.ContainsRune(path, 0) {
			return "", wrong(`write "unix:/run/clamav/clamd.ctl"`, "%q does not name a socket", clip(s))
		}
		return s, nil
	}
	if strings.HasPrefix(s, "/") {
		return "", wrong(fmt.Sprintf("did you mean %q?", clip("unix:"+s)), "%q is neither \"host:port\" nor the socket of a program", clip(s))
	}
	hp, err := readVia(v)
	if err != nil {
		err.text = fmt.Sprintf("%q is neither \"host:port\" nor the socket of a program", clip(s))
		err.hint = `write "127.0.0.1:11333", or "unix:/run/clamav/clamd.ctl"`
		return "", err
	}
	return hp.text, nil
}

// readFilterName reads a name for the log and the metrics.
func readFilterName(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil {
		return "", err
	}
	if s == "" || len(s) > 40 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return "", wrong("", "%q is not a name: write small letters, digits, \"-\" and \"_\", at most 40", clip(s))
	}
	return s, nil
}

// readScore reads a score of the spam filter.
func readScore(v *value) (*float64, *problem) {
	if v.kind != kindFloat && v.kind != kindInteger {
		return nil, wrong("write a number such as 4.5", "%s where a score is needed", v.kind)
	}
	n, ok := parseScore(v.text)
	if !ok {
		return nil, wrong("write a number such as 4.5", "%q is not a score between -1000 and 1000", clip(v.text))
	}
	return &n, nil
}

func parseScore(s string) (float64, bool) {
	n, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return n, err == nil && n >= -1000 && n <= 1000
}
