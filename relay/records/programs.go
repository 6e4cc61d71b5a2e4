package records

import (
	"context"
	"fmt"

	"relayd/relay"
)

func (c *check) autoconfig(ctx context.Context) Line {
	l := Line{Type: "A/AAAA", For: "autoconfig", Name: "autoconfig." + string(c.Domain), Want: fmt.Sprintf("CNAME %s.", c.Hostname)}
	found, err := c.dns.Addrs(ctx, relay.Domain(l.Name))
	if err != nil {
		return l.unanswered(err, Advice, "with it Thunderbird and K-9 find their settings")
	}
	for _, a := range found {
		l.Found = append(l.Found, a.String())
	}
	ours, err := c.dns.Addrs(ctx, c.Hostname)
	if err != nil {
		return l.judge(Unknown, "the addresses of %s cannot be found", c.Hostname)
	}
	for _, a := range found {
		if contains(ours, a) {
			return l.judge(OK, "mail programs find their settings here")
		}
	}
	return l.judge(Advice, "it leads to another host than %s", c.Hostname)
}

func (c *check) service(ctx context.Context, s Service) Line {
	l := Line{Type: "SRV", For: "srv", Name: s.Name, Want: text(s.SRV)}
	found, err := c.dns.SRV(ctx, s.Name)
	if err != nil {
		return l.unanswered(err, Advice, "with it some mail programs find their settings (RFC 6186)")
	}
	there := false
	for _, f := range found {
		l.Found = append(l.Found, text(f))
		there = there || f.Port == s.Port && f.Target == s.Target
	}
	if !there {
		return l.judge(Fault, "it sends mail programs where we do not listen")
	}
	return l.judge(OK, "mail programs are sent to port %d", s.Port)
}

func text(s relay.SRV) string {
	return fmt.Sprintf("%d %d %d %s.", s.Priority, s.Weight, s.Port, s.Target)
}
