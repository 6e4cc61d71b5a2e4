package policy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"relayd/relay"
)

// Run looks for the records of the keys now and then, and soon after the start makes the keys that
// are missing, until ctx ends.
func (ks *Keys) Run(ctx context.Context) {
	wait := firstKeys
	if len(ks.list()) > 0 {
		wait = 0
	}
	for relay.Sleep(ctx, wait) {
		wait = ks.round(ctx)
	}
}

// round makes what is missing, looks at every record, and says when to do so again.
func (ks *Keys) round(ctx context.Context) time.Duration {
	ks.changing.Lock()
	defer ks.changing.Unlock()
	if err := ks.ensure(ctx, now()); err != nil && ctx.Err() == nil {
		ks.log.Error("the keys to sign with cannot be made", "err", err)
	}
	ks.check(ctx)
	if slices.ContainsFunc(ks.list(), func(k Key) bool { return k.Role != Old && !k.Visible }) {
		return checkSoon
	}
	return checkInterval
}

// check looks at the records of every domain. Called with changing held.
func (ks *Keys) check(ctx context.Context) {
	var domains []relay.Domain
	for _, k := range ks.list() {
		if !slices.Contains(domains, k.Domain) {
			domains = append(domains, k.Domain)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	places := make(chan struct{}, checksAtOnce)
	var wg sync.WaitGroup
	for _, d := range domains {
		places <- struct{}{}
		wg.Go(func() {
			ks.checkDomain(ctx, d)
			<-places
		})
	}
	wg.Wait()
}

const (
	checkTimeout = 30 * time.Second // for a look at every record
	checksAtOnce = 16               // domains
)

func (ks *Keys) checkDomain(ctx context.Context, d relay.Domain) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	list := ks.of(d)
	var wg sync.WaitGroup
	for i, k := range list {
		wg.Go(func() { list[i] = ks.look(ctx, k) })
	}
	wg.Wait()
	ks.put(d, list)
}

// look returns the key as the DNS has it. While the DNS does not answer, what it said last holds.
func (ks *Keys) look(ctx context.Context, old *Key) *Key {
	k := *old
	found, err := ks.dns.TXT(ctx, k.RecordName())
	switch {
	case errors.Is(err, relay.ErrNoRecord):
		k.Problem = "there is no record"
	case err != nil:
		return old
	default:
		k.Problem = k.compare(found)
	}
	k.Visible, k.Checked = k.Problem == "", now()
	if k.Visible == old.Visible {
		return &k
	}
	if err := k.save(); err != nil {
		ks.log.Warn("a key cannot be written", "file", k.path, "err", err)
	}
	log := ks.log.With("record", k.RecordName(), "role", k.Role)
	if k.Visible {
		log.Info("the record of a key is visible")
	} else {
		log.Warn("the record of a key is gone: it does not sign any more", "problem", k.Problem)
	}
	return &k
}
