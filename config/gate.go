package config

import (
	"net/netip"
	"slices"
	"time"

	"relayd/relay"
)

// Gate says what is asked of strangers before their letters are read; see relay/gate. Policy.Mode
// counts for it too.
type Gate struct {
	Pass        []netip.Prefix // not weighed
	GreetWait   time.Duration  // for clients that talk before the greeting; 0: off
	Connections int            // of one network within a minute; 0: no bound
	Letters     int            // of one network within an hour; 0: no bound
	Greylist    time.Duration  // for the first letter of somebody unknown; 0: off

	NoReverse, BadHelo, ForgedHelo int // weights
	Junk, Reject                   int // sums from which on something follows
	Lists                          []GateList
}

// GateList is a list of addresses in the DNS (RFC 5782).
type GateList struct {
	Zone    relay.Domain
	Weight  int            // below 0: a list of the good; never 0
	Answers []netip.Prefix // those that count; none: all
}

// defaultGate lets nothing follow from weights alone: without a list they never add up to Junk.
func defaultGate() Gate {
	return Gate{
		Pass:      []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		GreetWait: time.Second, NoReverse: 1, BadHelo: 1, ForgedHelo: 2, Junk: 5, Reject: 10,
	}
}

const (
	maxWeight    = 1000
	maxGateLists = 20
	// maxGreetWait is well below the five minutes a client waits for a greeting (RFC 5321 §4.5.3.2.1),
	// and what most have the patience for.
	maxGreetWait = 20 * time.Second
	// maxGreylist is within what every mail server tries again for.
	maxGreylist = 12 * time.Hour
)

func (r *reader) gate(s section, c *Config) {
	g := &c.Gate
	if pass, present := many(s, "pass", readAnyNetwork); present {
		g.Pass = whats(pass)
		for _, p := range pass {
			if p.what.Bits() == 0 {
				r.warn(p.at, "", "%s is everybody, so the gate weighs nobody", p.what)
			}
		}
	}
	if at, _ := one(s, "greet_wait", &g.GreetWait, readDelay); g.GreetWait > maxGreetWait {
		r.complain(at, wrong("a second or two finds most of those who talk too early", "greet_wait is %s, and mail servers would not wait so long: %s is the most", inWords(g.GreetWait), inWords(maxGreetWait)))
	}
	one(s, "connections_per_minute", &g.Connections, readBound)
	one(s, "letters_per_hour", &g.Letters, readBound)
	if at, _ := one(s, "greylist", &g.Greylist, readDelay); g.Greylist > maxGreylist {
		r.complain(at, wrong(`a few minutes are enough, such as "5m"`, "greylist is %s, and writers would give up: %s is the most", inWords(g.Greylist), inWords(maxGreylist)))
	}
	one(s, "no_reverse", &g.NoReverse, readCount(0, maxWeight))
	one(s, "bad_helo", &g.BadHelo, readCount(0, maxWeight))
	one(s, "forged_helo", &g.ForgedHelo, readCount(0, maxWeight))
	junk, given := one(s, "junk", &g.Junk, readCount(1, maxWeight))
	at, _ := one(s, "reject", &g.Reject, readCount(1, maxWeight))
	if g.Reject < g.Junk {
		if given {
			at = junk
		}
		r.complain(at, wrong("junk must not be more than reject", "letters are refused from %d on, so that none would reach the %d that junk wants", g.Reject, g.Junk))
	}
	r.gateLists(s, g)
	if sum := g.NoReverse + max(g.BadHelo, g.ForgedHelo); sum >= g.Reject {
		r.warn(at, "many servers of honest people are set up carelessly", "no_reverse with bad_helo or forged_helo adds up to %d, by which alone letters are refused", sum)
	}
}

// readBound reads a number of at least one, or "off" for none.
func readBound(v *value) (int, *problem) {
	if s, err := readString(v); err == nil && s == "off" {
		return 0, nil
	}
	n, err := readCount(1, most)(v)
	if err != nil && err.hint == "" {
		err.hint = `write a number, or "off" for no bound`
	}
	return n, err
}

// gateLists reads the [[gate.list]] tables in their order.
func (r *reader) gateLists(s section, g *Gate) {
	n := 0
	tables(s, "list", g, func(t section, g *Gate) {
		if n++; n == maxGateLists+1 {
			r.complain(t.t.at, wrong("a few good ones say as much", "there are more than %d lists, and every one is asked about every stranger", maxGateLists))
		}
		r.gateList(t, g)
	})
}

// gateList reads one of them. Without a Gate it only makes the names known.
func (r *reader) gateList(s section, g *Gate) {
	var l GateList
	_, ok := one(s, "zone", &l.Zone, readDomain)
	at, weighs := one(s, "weight", &l.Weight, readCount(-maxWeight, maxWeight))
	got, hasAnswers := many(s, "answers", readAnswer)
	if g == nil {
		return
	}
	l.Answers = whats(got)
	switch {
	case s.t.get("zone") == nil:
		r.complain(s.t.at, wrong(`add zone = "list.example"`, "this list does not say in which zone of the DNS it is"))
	case s.t.get("weight") == nil:
		r.complain(s.t.at, wrong("add weight = 5, or one below 0 for a list of the good", "this list does not say how much it weighs"))
	case weighs && l.Weight == 0:
		r.complain(at, wrong("leave the list out, or give it a weight", "a weight of 0 changes nothing"))
	case hasAnswers && isEmptyList(s, "answers"):
		r.complain(s.t.get("answers").at, wrong("leave the line out for all of them", "with no answers this list would list nobody"))
	case ok && slices.ContainsFunc(g.Lists, func(have GateList) bool {
		return have.Zone == l.Zone && slices.Equal(have.Answers, l.Answers)
	}):
		r.complain(s.t.at, wrong("tell answers apart, or leave one out", "the list %s is given twice with the same answers", l.Zone))
	}
	g.Lists = append(g.Lists, l)
}

// readAnswer reads an answer of a list, or a network of them.
func readAnswer(v *value) (netip.Prefix, *problem) {
	s, err := readString(v)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := readAnyNetwork(v)
	if err != nil || !netip.MustParsePrefix("127.0.0.0/8").Overlaps(p) || p.Bits() < 8 {
		return p, wrong(`lists answer with addresses such as "127.0.0.2"; a range is written "127.0.0.0/28"`, "%q is no answer of a list", clip(s))
	}
	return p, nil
}
