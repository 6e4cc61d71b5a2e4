package mx

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"relayd/relay"
)

// letter is what an attempt is about, and what it has come to for each recipient so far.
type letter struct {
	env   relay.Envelope
	body  io.ReadSeeker
	size  int64 // octets of the body
	state []rcptState
	// trouble names the hosts that failed us and have not answered by another address since.
	trouble map[string]bool

	choice bool   // the present destination has both IPv4 and IPv6
	notSix string // why IPv6 is not its first choice

	waives *bool     // what waivesTLS says; nil: not asked yet
	seven  *sevenBit // how it goes to a host without 8BITMIME; nil: not asked yet
}

// asSevenBit reads, once, how the letter can be converted.
func (l *letter) asSevenBit() (*sevenBit, error) {
	if l.seven == nil {
		p, err := newSevenBit(l.body)
		if err != nil {
			return nil, &bodyError{err}
		}
		l.seven = p
	}
	return l.seven, nil
}

type rcptState struct {
	result  relay.Result
	rank    int          // of the verdict behind result; zero: none yet
	settled bool         // no other host is to be asked in this attempt
	lacking relay.Result // of a host that cannot take such letters; zero: none
}

// newLetter always returns a letter; with an error it can only be deferred.
func newLetter(env relay.Envelope, body io.ReadSeeker) (*letter, error) {
	l := &letter{env: env, body: body, state: make([]rcptState, len(env.Rcpts)), trouble: make(map[string]bool)}
	var err error
	l.size, err = body.Seek(0, io.SeekEnd)
	return l, err
}

// pending are the recipients for whom another host may still be asked.
func (l *letter) pending() []int {
	var out []int
	for i := range l.state {
		if !l.state[i].settled {
			out = append(out, i)
		}
	}
	return out
}

// needsUTF8 says whether the letter needs SMTPUTF8 whoever its recipients are.
func (l *letter) needsUTF8() bool { return l.env.UTF8 || !l.env.From.IsASCII() }

func (l *letter) allASCII(rcpts []int) bool {
	for _, i := range rcpts {
		if !l.env.Rcpts[i].Addr.IsASCII() {
			return false
		}
	}
	return true
}

// record keeps what s said about some recipients.
func (l *letter) record(s *session, rcpts []int, v verdict, r relay.Reply) {
	l.keep(rcpts, v, relay.Result{Reply: r, Host: s.target.String(), Way: l.way(s.target), TLS: s.security(), DSN: v.Outcome == relay.Delivered && s.offers("DSN")})
}

// recordOwn keeps what we say about some recipients ourselves.
func (l *letter) recordOwn(rcpts []int, v verdict, r relay.Reply) {
	l.keep(rcpts, v, relay.Result{Reply: r})
}

// recordLoss keeps the failure of a host for those of rcpts who are still without a verdict. s
// is nil when there was no session.
func (l *letter) recordLoss(ctx context.Context, t target, s *session, rcpts []int, err error) {
	if disk, ok := errors.AsType[*bodyError](err); ok {
		l.recordOwn(rcpts, hostUncertain, diskReply(disk.err))
		return
	}
	if r := l.finalLoss(t, err); r.Code != 0 {
		delete(l.trouble, t.name)
		l.recordOwn(rcpts, hostLacks, r)
		return
	}
	l.trouble[t.name] = true
	loss, ok := errors.AsType[*lossError](err)
	if !ok {
		loss = &lossError{phase: phaseConnect, err: err}
	}
	res := relay.Result{Way: l.way(t)}
	if s != nil {
		res.TLS = s.security()
	}
	v := judgeLoss(loss.phase)
	switch {
	case loss.reply.Code != 0:
		v = judge(loss.phase, loss.reply)
		res.Reply, res.Host = loss.reply, t.String()
	case ctx.Err() != nil && loss.phase != phaseEnd:
		res.Reply = cutShortReply(ctx)
	default:
		res.Reply = lossReply(loss.phase, t.String(), loss.err)
	}
	l.keep(rcpts, v, res)
}

// keep is the only place where results change. What is settled stays; the rest takes the word
// that tells most.
func (l *letter) keep(rcpts []int, v verdict, res relay.Result) {
	res.Outcome, res.At = v.Outcome, time.Now()
	for _, i := range rcpts {
		st := &l.state[i]
		res.Rcpt = l.env.Rcpts[i].Addr
		switch rank := v.rank(); {
		case st.settled:
		case v == hostLacks:
			st.lacking = res
		default:
			st.settled = !v.Next
			if rank >= st.rank {
				st.result, st.rank = res, rank
			}
		}
	}
}

// results are the answers, one for each recipient; whoever has none is deferred.
func (l *letter) results() []relay.Result {
	out := make([]relay.Result, len(l.state))
	for i, st := range l.state {
		switch {
		case st.rank < rankWords && !st.settled && len(l.trouble) == 0 && st.lacking.Outcome != "":
			out[i] = st.lacking
		case st.rank > 0:
			out[i] = st.result
		default:
			out[i] = relay.Result{Rcpt: l.env.Rcpts[i].Addr, Outcome: relay.Deferred, At: time.Now(),
				Reply: relay.Reply{Code: 451, Status: relay.Status{4, 4, 1}, Text: "no mail host could be asked"}}
		}
	}
	return out
}

// barred says that the host was not even dialled, because a policy forbids it.
func barred(err error) bool {
	loss, ok := errors.AsType[*lossError](err)
	return ok && loss.phase == phasePolicy
}

// noNetwork says that the failure was the machine's own and immediate: it has no way to that
// address, as an office without IPv6 has none to any IPv6 address. That is not a try.
func noNetwork(err error) bool {
	loss, ok := errors.AsType[*lossError](err)
	return ok && loss.phase == phaseConnect && (errors.Is(err, syscall.ENETUNREACH) ||
		errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT))
}
