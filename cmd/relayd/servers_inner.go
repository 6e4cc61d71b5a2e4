package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"relayd/config"
	"relayd/delivery"
	"relayd/delivery/mx"
	"relayd/relay"
	"relayd/relay/intake"
)

// innerRoutes are the routes to the servers that keep domains of ours. They come before all others: such
// mail never leaves by a smarthost.
func innerRoutes(cfg *config.Config) (out []mx.Route, err error) {
	for d, domain := range cfg.Domains {
		s := domain.Server
		if s == (config.Server{}) {
			continue
		}
		// Its certificate proves nothing: the line is the operator's own.
		r := mx.Route{To: string(d), LMTP: s.LMTP, Socket: s.Socket, TLS: mx.TLSMay}
		if s.Socket == "" {
			to, err := mx.ParseRoute(string(d), net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
			if err != nil {
				return nil, err
			}
			r.Via, r.Port = to.Via, to.Port
		}
		out = append(out, r)
	}
	return out, nil
}

// isInner says whether another server of ours keeps the mail of a domain.
func (h *house) isInner(d relay.Domain) bool { return h.config().Domains[d].Server != config.Server{} }

// isHere says whether mail for an address is kept in the maildirs here.
func (h *house) isHere(a relay.Address) bool { return h.isLocal(a) && !h.isInner(a.Domain) }

// isBackup says whether we take mail for a domain only until its own servers do.
func (h *house) isBackup(d relay.Domain) bool {
	_, ok := h.config().RelayDomains[d]
	return ok
}

func knownOf(k config.Known) intake.Known {
	names := make(map[string]bool, len(k.Recipients))
	for _, name := range k.Recipients {
		names[name] = true
	}
	return intake.Known{Names: names, Ask: k.Ask}
}

// ask is the callout.Caller. It is set up before the client that makes the calls.
func (h *house) ask(ctx context.Context, rcpt relay.Address) (bool, error) {
	if h.client == nil {
		return false, errors.New("not started yet")
	}
	return h.client.Ask(ctx, rcpt)
}

// homecoming brings letters home that wait for a server of ours whose domain is kept here by today's config:
// its MX records would lead to ourselves.
type homecoming struct {
	delivery.Deliverer
	h *house
}

// Deliver implements delivery.Deliverer.
func (c homecoming) Deliver(ctx context.Context, env relay.Envelope, domain relay.Domain, body io.ReadSeeker) []relay.Result {
	if !c.h.isHere(relay.Address{Domain: domain}) {
		return c.Deliverer.Deliver(ctx, env, domain, body)
	}
	var results []relay.Result
	for _, rcpt := range env.Rcpts {
		res := relay.Result{Rcpt: rcpt.Addr, Outcome: relay.Delivered, Arrived: true, At: time.Now(),
			Reply: relay.Reply{Code: 250, Status: relay.Status{2, 1, 5}, Text: "kept here now"}}
		if err := c.keep(ctx, env, rcpt, body); err != nil {
			res.Outcome, res.Arrived = relay.Deferred, false
			res.Reply = relay.Reply{Code: 451, Status: relay.Status{4, 3, 0}, Text: "it could not be put into a mailbox here: " + err.Error()}
			if f, ok := errors.AsType[*relay.Failure](err); ok {
				if res.Reply = f.Reply; f.Reply.Permanent() {
					res.Outcome = relay.Failed
				}
			}
		}
		results = append(results, res)
	}
	return results
}

// keep takes the letter in again for one recipient. Who asked to hear of success hears of it from the drain.
func (c homecoming) keep(ctx context.Context, env relay.Envelope, rcpt relay.Recipient, body io.ReadSeeker) error {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	again := relay.Envelope{From: env.From, UTF8: env.UTF8, RequireTLS: env.RequireTLS, Ret: env.Ret, EnvID: env.EnvID,
		Rcpts: []relay.Recipient{{Addr: rcpt.Addr, Notify: rcpt.Notify &^ relay.NotifySuccess}}}
	if again.Rcpts[0].Notify == 0 && rcpt.Notify != 0 {
		again.Rcpts[0].Notify = relay.NotifyNever
	}
	return c.h.intake.Submit(ctx, again, body)
}
