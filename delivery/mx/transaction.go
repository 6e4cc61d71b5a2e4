package mx

import (
	"context"
	"errors"

	"relayd/relay"
)

// Bounds of a session.
const (
	maxRcpts   = 1000     // recipients in a transaction; a host that wants fewer says 452
	maxMails   = 100      // transactions on a connection; some hosts hang up after that many
	windowSize = 16 << 10 // octets of commands sent before their replies are read
)

// transaction is one MAIL and what follows it, up to the reply to the final dot.
type transaction struct {
	s     *session
	l     *letter
	batch []int // indexes into the envelope's recipients

	asked    int // recipients whose reply has come
	accepted []int
	again    []int // refused only because the transaction is full
	refused  bool  // MAIL or RSET was; l knows
	go354    bool
	failure  error // the remote is out of its mind: close
}

// transaction offers the letter to the recipients of batch and records their results. It
// returns the recipients to offer in another transaction.
func (s *session) transaction(l *letter, batch []int) ([]int, error) {
	t := &transaction{s: s, l: l, batch: batch}
	s.mails++
	if err := t.envelope(); err != nil {
		return nil, err
	}
	switch {
	case t.go354 && len(t.accepted) == 0:
		return t.again, t.emptyData()
	case t.go354:
		return t.again, t.data()
	}
	return t.again, nil
}

// envelope says MAIL, every RCPT and DATA: in as few writes as the window allows where the host
// has PIPELINING, one by one where it has not.
func (t *transaction) envelope() error {
	for todo := t.commands(); len(todo) > 0; {
		if t.refused || todo[0].phase == phaseDATA && len(t.accepted) == 0 {
			return nil
		}
		n := t.window(todo)
		t.s.open = true
		err := t.s.pipeline(todo[:n], func(i int, a answer) { t.heard(todo[i].phase, a.reply()) })
		if err == nil {
			err = t.failure
		}
		if err != nil {
			return err
		}
		todo = todo[n:]
	}
	return nil
}

func (t *transaction) commands() []command {
	cmds := make([]command, 0, len(t.batch)+3)
	if t.s.open {
		cmds = append(cmds, command{phaseRSET, "RSET"})
	}
	cmds = append(cmds, command{phaseMAIL, t.s.mailCommand(t.l, t.batch)})
	for _, i := range t.batch {
		cmds = append(cmds, command{phaseRCPT, t.s.rcptCommand(t.l.env.Rcpts[i])})
	}
	return append(cmds, command{phaseDATA, "DATA"})
}

// window is how many commands go out together.
func (t *transaction) window(todo []command) int {
	if !t.s.offers("PIPELINING") {
		return 1
	}
	size := 0
	for n, cmd := range todo {
		if size += len(cmd.line) + 2; size > windowSize && n > 0 {
			return n
		}
	}
	return len(todo)
}

// heard takes the reply to a command of the envelope.
func (t *transaction) heard(p phase, r relay.Reply) {
	t.s.reused = false
	switch {
	case t.failure != nil:
	case p == phaseRCPT:
		t.heardRcpt(r)
	case p == phaseDATA:
		t.heardDATA(r)
	case r.OK():
	default: // RSET, MAIL
		t.refused = true
		t.condemn(t.batch, p, r)
	}
}

func (t *transaction) heardRcpt(r relay.Reply) {
	i := t.batch[t.asked]
	t.asked++
	switch {
	case r.OK():
		t.accepted = append(t.accepted, i)
	case t.refused: // its 503 says nothing new
	case tooMany(r) && len(t.accepted) > 0:
		t.again = append(t.again, i)
	default:
		t.condemn([]int{i}, phaseRCPT, r)
	}
}

func (t *transaction) heardDATA(r relay.Reply) {
	switch {
	case r.Code == 354:
		t.go354 = true
		if t.refused && len(t.accepted) > 0 {
			// It refused MAIL and yet took recipients and wants a letter: whatever we send now,
			// even a lone dot, could be delivered.
			t.failure = refused(phaseDATA, r)
		}
	case t.refused || len(t.accepted) == 0:
	default:
		t.condemn(t.accepted, phaseDATA, r)
		t.accepted = nil
	}
}

// condemn records a refusal for the recipients it concerns; host scope ends the session.
func (t *transaction) condemn(rcpts []int, p phase, r relay.Reply) {
	v := judge(p, r)
	if v.Scope == relay.ScopeHost {
		t.failure = refused(p, r)
		return
	}
	t.l.record(t.s, rcpts, v, r)
}

// data sends the letter to the recipients accepted.
func (t *transaction) data() error {
	r, err := t.s.sendBody(t.l)
	if loss, ok := errors.AsType[*lossError](err); ok && loss.phase == phaseEnd && loss.err != nil {
		// Only the recipients of this transaction may have got the letter; to the others this is
		// a host that was lost.
		t.l.recordLoss(context.Background(), t.s.target, t.s, t.accepted, err)
		return lost(phaseBody, loss.err)
	}
	if err != nil {
		return err
	}
	t.s.open = false
	t.condemn(t.accepted, phaseEnd, r)
	return t.failure
}

// emptyData ends a DATA that the host allowed although it had refused every recipient; such a
// letter has nobody to go to (RFC 2920 §3.1).
func (t *transaction) emptyData() error {
	a, err := t.s.exchange(phaseEnd, ".")
	if err != nil || a.code/100 == 3 {
		t.s.broken = true // every recipient has its answer, so that nothing is lost
		return nil
	}
	t.s.open = false
	return nil
}
