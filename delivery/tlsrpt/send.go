package tlsrpt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"relayd/delivery/web"
	"relayd/relay"
)

// When reports are sent.
const (
	spread   = 4 * time.Hour // after midnight UTC, so that not all the world writes at once (RFC 8460 §4.1)
	tryAgain = time.Hour
	tryFor   = 24 * time.Hour // RFC 8460 §5.4
)

// Bounds of a report by HTTPS.
const (
	postTimeout = time.Minute
	maxAnswer   = 64 << 10
)

// Sent is what became of one report at one place.
type Sent struct {
	Domain relay.Domain `json:"domain"`
	Day    time.Time    `json:"day"`
	To     string       `json:"to,omitempty"` // empty: the domain wants none, or could not be asked
	Err    string       `json:"error,omitempty"`
}

// Run sends what is due and keeps the file until ctx ends.
func (s *Store) Run(ctx context.Context) {
	keeping := make(chan struct{})
	go func() {
		defer close(keeping)
		s.keeper.Run(ctx)
	}()
	defer func() { <-keeping }()
	for {
		timer := time.NewTimer(time.Until(s.nextDue()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wanted:
			timer.Stop()
		case <-timer.C:
			s.sendDue(ctx, time.Now())
		}
	}
}

// Due is when the report of c is sent next. Domains have their moments, so that they do not hear from
// all the world at once.
func (s *Store) Due(c Counts) time.Time {
	if !c.Next.IsZero() {
		return c.Next
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", s.o.Hostname, c.Domain, c.Day.Unix())
	return c.Day.Add(day + time.Duration(h.Sum64()%uint64(spread)))
}

func (s *Store) nextDue() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Now().Add(day)
	for _, c := range s.all {
		if at := s.Due(*c); at.Before(next) {
			next = at
		}
	}
	return next
}

func (s *Store) sendDue(ctx context.Context, now time.Time) {
	for _, c := range s.List() {
		if ctx.Err() != nil {
			return
		}
		if !now.Before(s.Due(c)) {
			s.sendOne(ctx, c.Day, c.Domain, now)
		}
	}
}

// Send sends now what has been counted for d, or for every domain where it is empty, of today too.
func (s *Store) Send(ctx context.Context, d relay.Domain) (out []Sent) {
	now := time.Now()
	for _, c := range s.List() {
		if ctx.Err() == nil && (d == "" || c.Domain == d) {
			out = append(out, s.sendOne(ctx, c.Day, c.Domain, now)...)
		}
	}
	return out
}

// sendOne sends the report of a domain to every place that has not got it. What arrived everywhere, what
// nobody wants and what is too old is forgotten.
func (s *Store) sendOne(ctx context.Context, at time.Time, d relay.Domain, now time.Time) []Sent {
	s.sending.Lock()
	defer s.sending.Unlock()
	c, ok := s.get(at, d)
	if !ok {
		return nil // somebody else sent it
	}
	records, err := s.o.Resolver.TXT(ctx, "_smtp._tls."+string(d))
	if err != nil && !errors.Is(err, relay.ErrNoRecord) {
		s.settle(c, false, now)
		return []Sent{{Domain: d, Day: c.Day, Err: "the DNS cannot be asked: " + err.Error()}}
	}
	places := parsePlaces(records)
	if len(places) == 0 {
		s.settle(c, true, now)
		return []Sent{{Domain: d, Day: c.Day, Err: "it asks for no reports"}}
	}
	r := newReport(c, s.o.Hostname, now)
	packed, err := r.packed()
	if err != nil {
		s.settle(c, true, now)
		return []Sent{{Domain: d, Day: c.Day, Err: err.Error()}}
	}
	var out []Sent
	done := true
	for _, p := range places {
		if slices.Contains(c.Sent, p.text) {
			continue
		}
		sent := Sent{Domain: d, Day: c.Day, To: p.text}
		if err := s.sendTo(ctx, r, p, now, packed); err != nil {
			sent.Err = err.Error()
			done = done && permanent(err)
			s.log.Warn("a TLS report could not be sent", "rcpt", d, "to", p.text, "err", err)
		} else {
			c.Sent = append(c.Sent, p.text)
			s.log.Info("a TLS report was sent", "rcpt", d, "to", p.text)
		}
		out = append(out, sent)
	}
	s.settle(c, done, now)
	return out
}

func (s *Store) get(at time.Time, d relay.Domain) (Counts, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.all[keyOf(at, d)]
	if c == nil {
		return Counts{}, false
	}
	copied := *c
	copied.Policies = slices.Clone(c.Policies)
	for i := range copied.Policies {
		copied.Policies[i].Details = slices.Clone(c.Policies[i].Details)
	}
	copied.Sent = slices.Clone(c.Sent)
	return copied, true
}

// settle forgets the counts of sent, or notes when to try again. Sessions that were counted while the
// report was under way stay for the next one.
func (s *Store) settle(sent Counts, done bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeper.Changed()
	c := s.all[keyOf(sent.Day, sent.Domain)]
	if !done && now.Before(sent.Day.Add(day+spread+tryFor)) {
		c.Sent, c.Next = sent.Sent, now.Add(tryAgain)
		return
	}
	c.subtract(sent)
	s.size -= c.size
	if len(c.Policies) == 0 {
		delete(s.all, keyOf(sent.Day, sent.Domain))
		return
	}
	c.Sent, c.Next = nil, time.Time{}
	c.measure()
	s.size += c.size
}

// subtract takes away what sent has, which was a part of c.
func (c *Counts) subtract(sent Counts) {
	for i := range sent.Policies {
		p, was := &c.Policies[i], sent.Policies[i] // policies are only ever added, at the end
		p.Summary.Good -= was.Summary.Good
		p.Summary.Bad -= was.Summary.Bad
		for j := range was.Details {
			p.Details[j].Count -= was.Details[j].Count
		}
		p.Details = slices.DeleteFunc(p.Details, func(d Detail) bool { return d.Count == 0 })
	}
	c.Policies = slices.DeleteFunc(c.Policies, func(p Policy) bool { return p.Summary == Summary{} })
}

func (s *Store) sendTo(ctx context.Context, r report, p place, now time.Time, packed []byte) error {
	if p.url != nil {
		return s.post(ctx, p, packed)
	}
	env := relay.Envelope{ID: relay.NewID(now), Accepted: now, Rcpts: []relay.Recipient{{Addr: p.to}}, UTF8: !p.to.IsASCII()}
	letter := r.letter(env.ID, p.to, now, packed)
	env.Size = int64(len(letter))
	// Our own shutdown does not hurry the front door: a report that is half in would be written again.
	return s.o.Submit.Submit(context.WithoutCancel(ctx), env, bytes.NewReader(letter))
}

// permanent says that no later try would fare better.
func permanent(err error) bool {
	f, ok := errors.AsType[*relay.Failure](err)
	return ok && f.Reply.Permanent()
}

// newClient makes a client that checks certificates. RFC 8460 §3 lets the web server's be ignored; we do
// not, because a report tells who writes to whom.
func (s *Store) newClient() *http.Client {
	return web.NewClient(web.Options{Timeout: postTimeout, Resolver: s.o.Resolver, Roots: s.o.Roots, Dial: s.o.Dial, MayAsk: s.mayAsk})
}

// mayAsk keeps strangers from having us write to web servers of the office.
func (s *Store) mayAsk(a netip.Addr) bool {
	return s.o.AllowLoopback || !a.IsLoopback() && !a.IsPrivate() && !a.IsLinkLocalUnicast()
}

func (s *Store) post(ctx context.Context, p place, packed []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), bytes.NewReader(packed))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the web server answers %d", resp.StatusCode)
	}
	return nil
}
