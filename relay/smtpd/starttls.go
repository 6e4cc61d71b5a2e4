package smtpd

import (
	"context"
	"crypto/tls"
	"time"
)

// handleStartTLS puts TLS under the guard (RFC 3207); go-smtp never hears of it.
func (g *guard) handleStartTLS() {
	switch {
	case g.set.tls == nil:
		g.because("asked for STARTTLS, and tls is off")
		g.complain(replyNotHere)
		return
	case g.secure != nil:
		g.complain(say(503, "5.5.1", "TLS is on already"))
		return
	case len(g.window()) > 0:
		// What came behind STARTTLS came in the clear: it may be anybody's, and would otherwise be
		// taken for the client's words under TLS (CVE-2011-0411).
		g.part(say(421, "4.7.0", "nothing may follow STARTTLS before TLS starts"), "commands behind STARTTLS")
		return
	}
	g.reply(replyStartTLS)
	if err := g.flush(); err != nil {
		g.lose(err)
		return
	}
	if g.startTLS() != nil {
		return
	}
	// RFC 3207 §4.2: what the client said before TLS is forgotten.
	g.hello, g.user, g.peer.helo = "", "", ""
}

// startTLS shakes hands; after a failure the session is over.
func (g *guard) startTLS() error {
	var asked []uint16
	c := tls.Server(g.raw, g.listening(g.set.tls, &asked))
	ctx, cancel := context.WithTimeout(g.srv.ctx, min(g.set.limits.CommandTimeout, handshakeTimeout))
	defer cancel()
	g.raw.SetDeadline(time.Now().Add(g.set.limits.CommandTimeout))
	if err := c.HandshakeContext(ctx); err != nil {
		g.log.Info("refused", "client", g.peer.client, "reason", "TLS handshake", "err", err)
		g.because("%s", tlsTrouble(asked, g.set.tls.MinVersion, err))
		g.witness(replyNotTLS)
		g.dead = "TLS handshake failed"
		g.kill()
		return err
	}
	state := c.ConnectionState()
	g.conn, g.secure = c, &state
	return nil
}

// handshakeTimeout is plenty for two round trips.
const handshakeTimeout = time.Minute
