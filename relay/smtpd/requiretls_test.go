package smtpd_test

import (
	"strings"
	"testing"
)

// TestRequireTLS: REQUIRETLS is offered and taken under TLS alone, by anybody, and arrives (RFC 8689 §2).
func TestRequireTLS(t *testing.T) {
	t.Parallel()
	o := &office{}
	_, addr := listen(t, config(o))
	c := dial(t, addr)
	c.want("220*")
	c.send("EHLO c\r\n")
	if r := c.reply(); strings.Contains(r, "REQUIRETLS") {
		t.Fatalf("offered in the clear: %q", r)
	}
	c.do("MAIL FROM:<x@y.example> REQUIRETLS", "555 5.5.4*")
	c.startTLS()
	c.send("EHLO c\r\n")
	if r := c.reply(); !strings.Contains(r, "REQUIRETLS\n") {
		t.Fatalf("not offered under TLS: %q", r)
	}
	c.do("MAIL FROM:<x@y.example> REQUIRETLS=1", "555 5.5.4*")
	c.do("MAIL FROM:<x@y.example> requiretls", "250*")
	c.do("RCPT TO:<ann@office.example>", "250*")
	c.send("DATA\r\nx\r\n.\r\n")
	c.want("354*", "250*")
	c.do("MAIL FROM:<x@y.example>", "250*")
	c.do("RCPT TO:<ann@office.example>", "250*")
	c.send("DATA\r\nx\r\n.\r\nQUIT\r\n")
	c.want("354*", "250*", "221*")
	if all := o.all(); len(all) != 2 || !all[0].params.RequireTLS || all[1].params.RequireTLS {
		t.Errorf("%+v", all)
	}
}
