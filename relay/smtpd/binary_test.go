package smtpd_test

import (
	"net/netip"
	"strings"
	"testing"
)

// TestBinary: a letter of BODY=BINARYMIME comes by BDAT, octet for octet, and by nothing else; it is
// offered where DSN is (RFC 3030).
func TestBinary(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{true, false} {
		o := &office{}
		cfg := config(o)
		cfg.Trusted = func(netip.Addr) bool { return trusted }
		_, addr := listen(t, cfg)
		c := dial(t, addr)
		c.want("220*")
		c.send("EHLO c\r\n")
		if r := c.reply(); strings.Contains(r, "BINARYMIME\n") != trusted {
			t.Fatalf("trusted %v: %q", trusted, r)
		}
		c.send("MAIL FROM:<x@y.example> BODY=BINARYMIME\r\n")
		if !trusted {
			c.want("501 5.5.4*")
			continue
		}
		c.send("RCPT TO:<ann@office.example>\r\nDATA\r\n")
		c.want("250*", "250*", "503 5.5.1*")
		raw := "Subject: x\r\n\r\n\x00\n\r.\r\n.\r\n\xff"
		c.send("BDAT 20\r\n" + raw[:20] + "BDAT 4 LAST\r\n" + raw[20:])
		c.want("250*", "250*")
		// Without it, the octets are looked at as ever.
		c.send("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nBDAT 6 LAST\r\na\x00b\nc\r")
		c.want("250*", "250*", "5*")
		c.send("QUIT\r\n")
		c.want("221*")
		if got := o.all(); len(got) != 1 || got[0].body != raw || !got[0].params.Binary {
			t.Errorf("%+v", got)
		}
	}
}
