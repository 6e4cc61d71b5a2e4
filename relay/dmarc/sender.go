package dmarc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"relayd/relay"
)

// Sender sends the reports that a Ledger has gathered.
type Sender struct {
	Ledger   *Ledger
	Hostname relay.Domain
	// From writes the reports: the postmaster of a domain that signs them, because a report must
	// pass DMARC itself (RFC 9990 §3.5.2).
	From      relay.Address
	Generator string // our name and version
	DNS       relay.Resolver
	// Organization is the Organizational Domain of a name (RFC 9989 §4.10.2); an error: could not ask.
	Organization func(ctx context.Context, name string) (string, error)
	Submit       relay.Submitter
	// Enabled says whether reports are sent now; what is due meanwhile is thrown away.
	Enabled func() bool

	sending sync.Mutex
}

const (
	spread    = time.Hour      // the reports of one night leave at our own minute of it
	retry     = time.Hour      // after trouble with the DNS or with our own disk
	tooOld    = 48 * time.Hour // and then a report is given up
	lookupMax = 30 * time.Second
)

// Run keeps the ledger's file and sends every domain's report soon after midnight, UTC, until ctx
// ends. What lies there from a day when we were down goes at the start.
func (s *Sender) Run(ctx context.Context) {
	var keeping sync.WaitGroup
	defer keeping.Wait()
	keeping.Go(func() { s.Ledger.keeper.Run(ctx) })
	for {
		now := time.Now()
		wait := s.minute(now).Sub(now)
		if left := s.Send(ctx, day(now)); left > 0 {
			wait = min(wait, retry)
		}
		if !relay.Sleep(ctx, wait) {
			return
		}
	}
}

// minute is when the next reports leave: somewhere in the hour after midnight, at each host another
// time, so that not all of the world's reports arrive at once.
func (s *Sender) minute(now time.Time) time.Time {
	h := fnv.New32a()
	h.Write([]byte(s.Hostname))
	at := day(now).Add(time.Duration(h.Sum32()) % spread)
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	return at
}

// Send sends what was gathered before end and returns how many reports are still to be sent
// because something temporary was in the way.
func (s *Sender) Send(ctx context.Context, end time.Time) (left int) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.Ledger.Cut(end)
	for _, a := range s.Ledger.Due() {
		if ctx.Err() != nil {
			return left + 1
		}
		err := s.sendOne(ctx, a)
		log := s.Ledger.log.With("domain", a.Published.Domain, "begin", a.Begin, "letters", a.Letters())
		switch {
		case err == nil:
		case isPermanent(err) || time.Since(a.End) > tooOld:
			log.Warn("a DMARC report cannot be sent and is given up", "err", err)
		default:
			log.Warn("a DMARC report cannot be sent just now", "err", err)
			left++
			continue
		}
		if err := s.Ledger.Settle(a); err != nil {
			// It may be sent once more, under the same Report-ID.
			log.Warn("what was reported cannot be forgotten", "err", err)
		}
	}
	return left
}

func isPermanent(err error) bool {
	f, ok := errors.AsType[*relay.Failure](err)
	return ok && f.Reply.Permanent()
}

// sendOne hands the report of an account to the front door, one letter for each address.
func (s *Sender) sendOne(ctx context.Context, a *Account) error {
	if !s.Enabled() || len(a.Rows) == 0 || a.isEcho() {
		return nil
	}
	lookups, cancel := context.WithTimeout(ctx, lookupMax)
	defer cancel()
	to, err := s.destinations(lookups, a)
	if err != nil {
		return fmt.Errorf("where to: %w", err)
	}
	log := s.Ledger.log.With("domain", a.Published.Domain)
	if len(to) == 0 {
		log.Info("nobody takes the DMARC report of a domain", "rua", a.RUA)
		return nil
	}
	if a.Missed > 0 {
		log.Warn("a DMARC report is not complete: there were more kinds of letters than it may count", "missed", a.Missed)
	}
	report := s.report(a)
	var errs []error
	for _, rcpt := range to {
		if err := s.submit(ctx, report, rcpt); err != nil {
			errs = append(errs, err)
			continue
		}
		log.Info("a DMARC report is under way", "rcpt", rcpt, "letters", a.Letters(), "report", report.Metadata.ReportID)
	}
	if len(errs) < len(to) {
		return nil // once more would send the others theirs once more
	}
	return errors.Join(errs...)
}

// submit asks for no report about the report: whoever names a dead address hears nothing, and
// our postmaster is not told of it every day.
func (s *Sender) submit(ctx context.Context, r Report, to relay.Address) error {
	now := time.Now()
	letter, err := s.compose(r, to, now)
	if err != nil {
		return err
	}
	return s.Submit.Submit(ctx, relay.Envelope{ID: relay.NewID(now), From: s.From, Accepted: now, Size: int64(len(letter)),
		Rcpts: []relay.Recipient{{Addr: to, Notify: relay.NotifyNever}}}, bytes.NewReader(letter))
}
