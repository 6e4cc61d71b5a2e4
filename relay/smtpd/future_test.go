package smtpd_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestFuture: what people ask of the time at MAIL is offered to them, with its limits, understood and
// handed on; what is malformed, contradicts itself or lies too far off is refused (RFC 2852, RFC 4865).
func TestFuture(t *testing.T) {
	t.Parallel()
	o := &office{}
	cfg := config(o)
	cfg.Service = "submission"
	_, addr := listen(t, cfg)
	c := dial(t, addr)
	c.want("220*")
	c.send("EHLO c\r\n")
	before := time.Now()
	if r := c.reply(); !strings.Contains(r, "250-DELIVERBY\n") ||
		!strings.Contains(r, "250-FUTURERELEASE 2592000 20") {
		t.Fatalf("not offered: %q", r)
	}
	for _, bad := range []string{
		"HOLDFOR=", "HOLDFOR", "HOLDFOR=-5", "HOLDFOR=1h", "HOLDFOR=2592001", "HOLDFOR=9999999999", "HOLDFOR=5 HOLDFOR=5",
		"HOLDFOR=5 HOLDUNTIL=2026-12-24T18:00:00Z", "HOLDUNTIL=tomorrow", "HOLDUNTIL=2226-12-24T18:00:00Z", "HOLDUNTIL=2026-12-24",
		"BY=", "BY=5", "BY=0;R", "BY=-5;R", "BY=5;Q", "BY=5;R BY=5;R", "HOLDFOR=3600 BY=60;R",
	} {
		c.send("MAIL FROM:<ann@office.example> " + bad + "\r\n")
		if r := c.reply(); !strings.HasPrefix(r, "501 5.5.4") {
			t.Errorf("%s: %q", bad, r)
		}
	}
	c.send("MAIL FROM:<ann@office.example> holdfor=3600 BY=+7200;rt\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
	c.want("250*", "250*", "354*")
	c.send("x\r\n.\r\n")
	c.want("250*")
	c.send("MAIL FROM:<ann@office.example> HOLDUNTIL=2001-02-03T04:05:06Z BY=-5;N\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
	c.want("250*", "250*", "354*")
	c.send("x\r\n.\r\nQUIT\r\n")
	c.want("250*", "221*")
	p, q := o.all()[0].params, o.all()[1].params
	if d := p.Release.Sub(before); d < time.Hour || d > time.Hour+time.Minute {
		t.Errorf("released after %v", d)
	}
	if d := p.By.At.Sub(before); d < 2*time.Hour || d > 2*time.Hour+time.Minute || !p.By.Return || !p.By.Trace {
		t.Errorf("due after %v: %+v", d, p.By)
	}
	if q.Release.Year() != 2001 || q.By.Return || q.By.Trace || !q.By.Overdue(before) {
		t.Errorf("%+v", q)
	}
}

// TestStrangersHaveNoFuture: nobody keeps letters here whose name we do not know; a trusted machine is
// offered DELIVERBY as it is DSN.
func TestStrangersHaveNoFuture(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		cfg := config(&office{})
		cfg.Trusted = func(netip.Addr) bool { return trusted }
		_, addr := listen(t, cfg)
		c := dial(t, addr)
		c.want("220*")
		c.send("EHLO c\r\n")
		if r := c.reply(); strings.Contains(r, "FUTURERELEASE") || strings.Contains(r, "DELIVERBY") != trusted {
			t.Fatalf("trusted %v: %q", trusted, r)
		}
		c.send("MAIL FROM:<x@y.example> HOLDFOR=5\r\nMAIL FROM:<x@y.example> HOLDUNTIL=2026-12-24T18:00:00Z\r\nMAIL FROM:<x@y.example> BY=5;R\r\n")
		if c.want("555 5.5.4*", "555 5.5.4*"); trusted {
			c.want("250*")
		} else {
			c.want("555 5.5.4*")
		}
	}
}
