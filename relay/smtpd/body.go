package smtpd

import (
	"errors"
	"fmt"
	"io"
	"time"

	"relayd/relay"
)

// body is a letter while it is being received, as an io.Reader for the Acceptor: dots unstuffed,
// nothing but CR LF line ends, no NUL. io.EOF means that all of it has come: through CRLF.CRLF,
// or through the last octet of BDAT LAST. Every other error means that there is no letter.
type body struct {
	g       *guard
	dec     decoder
	chunked bool
	chunk   chunk // BDAT: size is what is still to come of this chunk

	size   int64 // octets given out
	taken  int64 // octets taken from the wire
	waited time.Duration
	done   bool
	err    error // why the letter is refused or lost; for good
	ended  verb  // RSET or QUIT between two chunks
}

// errGone is what the Acceptor hears when the client is no longer there. It is not the letter's
// fault, and nobody is left to read a reply.
var errGone = errors.New("smtpd: the connection ended inside the message")

func newBody(g *guard, v verb) *body {
	b := &body{g: g, dec: decoder{dots: v == verbDATA, normalize: g.set.normalize, anyLF: g.bareLF}}
	if v == verbBDAT {
		b.chunked = true
		b.dec.raw = g.letter.binary
		b.begin(g.chunk)
	}
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for {
		switch {
		case b.err != nil:
			return 0, b.err
		case b.done:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		n := b.step(p)
		if b.size += int64(n); b.size > b.g.set.limits.MessageSize {
			b.refuse(tooLarge())
			continue
		}
		if b.dec.bad != clean {
			b.refuse(b.dec.bad.refusal())
		}
		if n > 0 {
			return n, nil
		}
	}
}

func tooLarge() error { return relay.Fail("smtpd: data", relay.ScopeMessage, replyTooLarge, nil) }

// refuse keeps the first reason.
func (b *body) refuse(err error) {
	if b.err == nil {
		b.err = err
	}
}

// step decodes one piece of the letter into p. No octets and no change of state never happens:
// it waits for the client.
func (b *body) step(p []byte) int {
	if b.chunked && b.chunk.size == 0 {
		return b.chunkEnd(p)
	}
	win := b.window()
	if len(win) == 0 {
		if err := b.fill(); err != nil {
			b.lost(err)
			return 0
		}
		win = b.window()
	}
	n, used, end := b.dec.decode(p, win)
	b.g.use(used)
	b.taken += int64(used)
	b.chunk.size -= int64(used)
	b.done = end
	return n
}

// window is what has arrived of the letter: in BDAT no further than the chunk.
func (b *body) window() []byte {
	win := b.g.window()
	if b.chunked && int64(len(win)) > b.chunk.size {
		win = win[:b.chunk.size]
	}
	return win
}

// fill waits for the client, no longer than a letter of this size at the minimum rate may take.
func (b *body) fill() error {
	b.g.grow()
	l := &b.g.set.limits
	start := time.Now()
	allowed := l.DataTimeout
	if l.MinRate > 0 {
		sent := time.Duration(b.taken) * time.Second / time.Duration(l.MinRate)
		if b.taken > 1<<30 { // Duration would overflow
			sent = time.Duration(b.taken/l.MinRate) * time.Second
		}
		allowed = min(allowed, l.DataTimeout+sent-b.waited)
	}
	until := earlier(start.Add(allowed), b.g.letter.until)
	err := b.g.fill(earlier(until, b.g.opened.Add(l.SessionTimeout)), false)
	b.waited += time.Since(start)
	return err
}

// lost ends letter and session.
func (b *body) lost(err error) {
	b.refuse(fmt.Errorf("%w: %w", errGone, err))
	b.g.lose(err)
}

// chunkEnd answers a chunk that has come and looks for the next.
func (b *body) chunkEnd(p []byte) (n int) {
	if b.chunk.last {
		n, b.done = b.dec.finish(p)
		return n
	}
	b.g.reply(say(250, "2.0.0", "chunk received"))
	b.nextChunk()
	return 0
}

// nextChunk reads commands until one continues or ends the letter (RFC 3030 §2).
func (b *body) nextChunk() {
	g := b.g
	for g.dead == "" {
		line, err := g.command()
		if err != nil {
			g.badLine(err)
			continue
		}
		v, arg := splitCommand(line)
		g.logCommand(v, arg)
		switch {
		case v == verbBDAT:
			c, ok := parseChunk(arg)
			switch {
			case !ok:
				g.badChunk()
			case c.size > 0 || c.last || g.chat():
				b.begin(c)
				return
			}
		case v == verbNOOP:
			if g.chat() {
				g.reply(replyOK)
			}
		case (v == verbRSET || v == verbQUIT) && arg == "":
			b.ended = v
			b.refuse(errors.New("smtpd: the client gave the letter up"))
			return
		case isHTTP(v):
			g.notHTTP()
		default:
			g.complain(replyMidChunk)
		}
	}
	b.refuse(errGone)
}

// begin starts a chunk. One that cannot fit is refused before any of it is looked at.
func (b *body) begin(c chunk) {
	b.chunk = c
	if c.size > b.g.set.limits.MessageSize-b.size {
		b.refuse(tooLarge())
	}
}

// drain takes in what is still to come of a letter that is refused, so that both sides stay in
// step: up to the lone dot, or to the end of the chunk.
func (b *body) drain() {
	if b.chunked {
		if b.g.dead == "" {
			b.g.swallow(b.chunk.size)
		}
		return
	}
	if b.dec.bad == clean {
		b.dec.bad = nulFound // nothing that follows is looked at any more
	}
	scratch := make([]byte, 4<<10)
	for !b.done && b.g.dead == "" {
		if b.taken > swallowFactor*b.g.set.limits.MessageSize {
			b.g.reply(replyTooLarge)
			b.g.hangup("a letter without end")
			return
		}
		b.step(scratch)
	}
}

// swallow takes in n octets that belong to nothing. false: there were too many, or the client
// is gone, and the session is over.
func (g *guard) swallow(n int64) bool {
	if n > swallowFactor*g.set.limits.MessageSize {
		g.reply(replyTooLarge)
		g.hangup("a chunk without end")
		return false
	}
	until := earlier(time.Now().Add(g.set.limits.TransactionTimeout), g.opened.Add(g.set.limits.SessionTimeout))
	for n > 0 && g.dead == "" {
		if len(g.window()) == 0 {
			g.grow()
			if err := g.fill(earlier(until, time.Now().Add(g.set.limits.DataTimeout)), false); err != nil {
				g.lose(err)
			}
			continue
		}
		used := int(min(n, int64(len(g.window()))))
		g.use(used)
		n -= int64(used)
	}
	return g.dead == ""
}
