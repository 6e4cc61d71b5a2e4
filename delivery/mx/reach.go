package mx

import (
	"context"

	"relayd/relay"
)

// maxReached is how many addresses of a domain Reaches tries.
const maxReached = 3

// Reaches says whether a mail host of d greets us, in whatever words: then our own line works. It looks at
// no route and at nothing that it remembers, says nothing but QUIT, and ends with ctx.
func (c *Client) Reaches(ctx context.Context, d relay.Domain) bool {
	targets, _, _ := c.targets(ctx, d, nil)
	for _, t := range targets[:min(maxReached, len(targets))] {
		if c.isGreeted(ctx, t) {
			return true
		}
	}
	return false
}

func (c *Client) isGreeted(ctx context.Context, t target) bool {
	cn, err := c.dial(ctx, t.addr)
	if err != nil {
		return false
	}
	s := &session{conn: cn, target: t}
	s.attach(ctx)
	defer s.detach()
	if _, err := s.read(phaseGreeting); err != nil {
		s.abort()
		return false
	}
	s.quit()
	return true
}
