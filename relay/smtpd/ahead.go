package smtpd

import (
	"bytes"
	"context"

	"relayd/relay"
)

// expecter is a transaction that likes to know of recipients before their turn: it may ask others
// about them, and all at the same time.
type expecter interface {
	Expect(ctx context.Context, to relay.Address)
}

// lookAhead tells the transaction of the RCPT commands that the client has sent behind the one at
// hand (RFC 2920). Nothing is taken from the wire, and each command still gets its turn.
func (g *guard) lookAhead() {
	tx, ok := g.letter.tx.(expecter)
	if !ok {
		return
	}
	if g.letter.ahead > 0 { // known since an earlier look
		g.letter.ahead--
		return
	}
	tx.Expect(g.srv.ctx, g.rcpt.to)
	for rest := g.window(); ; {
		line, more, whole := bytes.Cut(rest, []byte("\r\n"))
		if !whole || len(line) > g.set.limits.CommandLine {
			return
		}
		v, arg := splitCommand(line)
		if v != verbRCPT || g.letter.rcpts+g.letter.ahead >= g.set.limits.Recipients {
			return
		}
		rest = more
		if rcpt, refusal := parseRcpt(arg, g.letter.utf8, g.offer()); refusal == nil {
			g.letter.ahead++
			tx.Expect(g.srv.ctx, rcpt.to)
		}
	}
}
