package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"relayd/relay"
)

// Bounds of what is asked of the DNS about the recipients of one letter.
const (
	// dnsPatience is how long all of its RCPT commands together wait for the DNS. What has no
	// answer by then is accepted.
	dnsPatience = 5 * time.Second
	// maxDomains are asked about; more are accepted unasked.
	maxDomains = 1000
	// maxLookups are under way at the same time, for all letters together.
	maxLookups = 64
)

// destinations finds out, while the writer still looks, whether the domains of one letter can take
// mail at all. The zero value is ready; it belongs to one goroutine.
type destinations struct {
	asked  map[relay.Domain]*lookup
	left   time.Duration // of dnsPatience
	cancel context.CancelFunc
	ctx    context.Context
	under  sync.WaitGroup
}

// lookup is one domain asked about. reply is what to refuse it with once done is closed; the zero
// Reply accepts it.
type lookup struct {
	done  chan struct{}
	reply relay.Reply
}

// Expect is told of a recipient whose RCPT command has come in and waits for its turn, so that the
// DNS is asked about all of a pipelined batch at once. It implements relay/smtpd's idea of a
// transaction that likes to know ahead.
func (t *transaction) Expect(ctx context.Context, to relay.Address) {
	if found, err := t.settings.Directory.Classify(t.env.Origin, to); err == nil && t.mayBeTypo(found, to) {
		t.places.ask(ctx, t.in, to.Domain)
	}
}

// checkDomain refuses a recipient of our own people's whose domain does not exist (550 5.1.2) or
// takes no mail (550 5.1.10, RFC 7505 §4.2). Trouble with the DNS never refuses.
func (t *transaction) checkDomain(ctx context.Context, found []relay.Recipient, to relay.Address) error {
	if !t.mayBeTypo(found, to) {
		return nil
	}
	l := t.places.ask(ctx, t.in, to.Domain)
	if l == nil || !t.places.wait(ctx, l) || l.reply.Code == 0 {
		return nil
	}
	reply := l.reply
	if t.in.suggest != nil {
		if d, ok := t.in.suggest(to.Domain); ok {
			reply.Text += "; did you mean " + relay.Address{Local: to.Local, Domain: d}.String() + "?"
		}
	}
	return relay.Fail("intake: rcpt", relay.ScopeRecipient, reply, nil)
}

// mayBeTypo says whether a writer of ours named a domain whose mail goes where the DNS says. What
// an alias leads to, and what a route of the config takes, the operator wrote.
func (t *transaction) mayBeTypo(found []relay.Recipient, to relay.Address) bool {
	return t.in.dns != nil && t.settings.submitted(t.env.Origin) && !to.Domain.IsLiteral() &&
		len(found) == 1 && found[0].Mailbox.IsNull() && found[0].Addr == to &&
		(t.settings.Routed == nil || !t.settings.Routed(to.Domain))
}

// ask starts to look a domain up, once; nil when too many were asked about.
func (p *destinations) ask(ctx context.Context, in *Intake, d relay.Domain) *lookup {
	if l := p.asked[d]; l != nil || len(p.asked) >= maxDomains {
		return l
	}
	if p.asked == nil {
		p.asked, p.left = map[relay.Domain]*lookup{}, dnsPatience
		p.ctx, p.cancel = context.WithCancel(ctx)
	}
	l := &lookup{done: make(chan struct{})}
	p.asked[d] = l
	p.under.Go(func() {
		defer close(l.done)
		ctx, cancel := context.WithTimeout(p.ctx, dnsPatience)
		defer cancel()
		select {
		case in.lookups <- struct{}{}:
			defer func() { <-in.lookups }()
			l.reply = destination(ctx, in.dns, d)
		case <-ctx.Done():
		}
	})
	return l
}

// wait returns whether there is an answer, within what is left of dnsPatience.
func (p *destinations) wait(ctx context.Context, l *lookup) bool {
	start := time.Now()
	defer func() { p.left = max(0, p.left-time.Since(start)) }()
	timer := time.NewTimer(p.left)
	defer timer.Stop()
	select {
	case <-l.done:
		return true
	default:
	}
	select {
	case <-l.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// end breaks off what is still being asked.
func (p *destinations) end() {
	if p.cancel != nil {
		p.cancel()
	}
	p.under.Wait()
}

// destination says why mail for d can go nowhere, as delivery/mx would find out later: the zero
// Reply when it can, or when the DNS does not say.
func destination(ctx context.Context, dns relay.Resolver, d relay.Domain) relay.Reply {
	mxs, err := dns.MX(ctx, d)
	if err == nil && len(mxs) > 0 {
		for _, mx := range mxs {
			if mx.Host != "" {
				return relay.Reply{}
			}
		}
		return relay.Reply{Code: 550, Status: relay.Status{5, 1, 10},
			Text: fmt.Sprintf("the domain %s says in the DNS that it takes no mail", d)}
	}
	if err != nil && !errors.Is(err, relay.ErrNoRecord) {
		return relay.Reply{}
	}
	// RFC 5321 §5.1: without an MX record its address takes its mail.
	if _, err := dns.Addrs(ctx, d); !errors.Is(err, relay.ErrNoRecord) {
		return relay.Reply{}
	}
	return relay.Reply{Code: 550, Status: relay.Status{5, 1, 2},
		Text: fmt.Sprintf("the domain %s does not exist, or has no mail server", d)}
}
