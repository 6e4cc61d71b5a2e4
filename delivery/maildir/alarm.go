package maildir

import (
	"context"
	"net/netip"
	"time"

	"relayd/relay"
)

const (
	// alarmWindow is how recently the other client must have fetched.
	alarmWindow = 14 * 24 * time.Hour
	// alarmQuiet is for how long nobody is told twice of the same two clients of a mailbox.
	alarmQuiet = 30 * 24 * time.Hour
	// alarmQueue is how many sessions may wait to be looked into; more are passed over.
	alarmQueue = 16

	fetchWarned = "warned" // <time> warned <network> <network>
)

// Emptying says that one client empties a mailbox that another one reads.
type Emptying struct {
	Mailbox relay.Address
	Client  netip.Addr // who removed letters
	Other   netip.Addr // who had fetched them before, and left them
	Last    time.Time  // when that one last did
	Letters int        // how many of them
	Kept    time.Duration
}

// WithAlarm has tell called, in a goroutine of the store's own, when a client starts to empty a
// mailbox that another one reads. An error means that nobody was told, and the next session of
// that client leads here again.
//
// POP3 does not say which program calls (RFC 1939), so this goes by what one program never does:
// to fetch a letter a second time. A session counts that fetched letters and removed every one of
// them, of which a client of another network had fetched some within 14 days. A person's one
// program with a changing address, at home and in the office, fetches each letter once and gives
// no alarm; nor does who reads in one session and removes in a later one. Addresses of one IPv4
// /24 or IPv6 /64 are one client.
func WithAlarm(tell func(ctx context.Context, e Emptying) error) Option {
	return func(s *Store) { s.tell, s.suspects = tell, make(chan suspect, alarmQueue) }
}

// suspect is a session that removed all it fetched.
type suspect struct {
	box    *box
	client netip.Addr
	uids   map[string]bool
}

// suspect hands this session over if it removed every letter it fetched.
func (d *Drop) suspect() {
	if d.store.tell == nil || !d.client.IsValid() {
		return
	}
	uids := map[string]bool{}
	for i, l := range d.letters {
		if l.seen && l.sub != "" {
			return
		}
		if l.seen {
			uids[d.messages[i].UID] = true
		}
	}
	if len(uids) == 0 {
		return
	}
	select {
	case d.store.suspects <- suspect{d.box, d.client, uids}:
	default: // the next session of that client will do
	}
}

// watch looks into suspects until ctx ends.
func (s *Store) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case who := <-s.suspects:
			if err := s.lookInto(ctx, who); err != nil {
				s.log.Warn("cannot warn of a second client", "mailbox", who.box.addr, "client", who.client, "err", err)
			}
		}
	}
}

// lookInto reads the fetch log of the mailbox for somebody else who fetched the same letters.
func (s *Store) lookInto(ctx context.Context, who suspect) error {
	now := time.Now()
	own := network(who.client)
	others := map[netip.Prefix]*Emptying{}
	for fields, err := range fetchLines(who.box.dir) {
		if err != nil {
			return err
		}
		if told, ok := parseWarned(fields, own); ok && now.Sub(told.at) < alarmQuiet {
			others[told.other] = nil
		}
		f, ok := parseFetch(fields)
		net := network(f.Client)
		if !ok || f.Word != FetchTaken || net == own || !who.uids[f.UID] || now.Sub(f.At) > alarmWindow {
			continue
		}
		e, known := others[net]
		if !known {
			e = &Emptying{Mailbox: who.box.addr, Client: who.client, Kept: s.keep}
			others[net] = e
		}
		if e != nil {
			e.Letters, e.Other, e.Last = e.Letters+1, f.Client, f.At
		}
	}
	for net, e := range others {
		if e == nil {
			continue
		}
		if err := s.tell(ctx, *e); err != nil {
			return err
		}
		line := now.UTC().Format(time.RFC3339) + " " + fetchWarned + " " + own.String() + " " + net.String() + "\n"
		if err := appendFetches(who.box.dir, []byte(line)); err != nil {
			return err
		}
	}
	return nil
}

type warned struct {
	at    time.Time
	other netip.Prefix
}

// parseWarned reads a line that says that somebody was told of this client and another one.
func parseWarned(fields []string, own netip.Prefix) (w warned, ok bool) {
	if len(fields) != 4 || fields[1] != fetchWarned || fields[2] != own.String() {
		return w, false
	}
	at, err1 := time.Parse(time.RFC3339, fields[0])
	other, err2 := netip.ParsePrefix(fields[3])
	return warned{at, other}, err1 == nil && err2 == nil
}

// network is what counts as one client.
func network(client netip.Addr) netip.Prefix {
	bits := 24
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits)
	return p
}
