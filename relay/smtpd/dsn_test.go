package smtpd_test

import (
	"net/netip"
	"strings"
	"testing"

	"relayd/relay"
)

// TestReportsAreAskedFor: what a client asks of reports arrives decoded, what is malformed is
// refused, and the transaction goes on (RFC 3461 §4).
func TestReportsAreAskedFor(t *testing.T) {
	t.Parallel()
	o := &office{}
	cfg := config(o)
	cfg.Trusted = func(netip.Addr) bool { return true }
	_, addr := listen(t, cfg)
	c := dial(t, addr)
	c.want("220*")
	c.send("EHLO c\r\n")
	if r := c.reply(); !strings.Contains(r, "DSN\n") {
		t.Fatalf("DSN is not offered: %q", r)
	}
	c.send("MAIL FROM:<x@y.example> RET=some\r\nMAIL FROM:<x@y.example> RET=HDRS RET=FULL\r\n" +
		"MAIL FROM:<x@y.example> ENVID=a+0D+0Ab\r\nMAIL FROM:<x@y.example> ENVID=" + strings.Repeat("x", 101) + "\r\n" +
		"MAIL FROM:<x@y.example> ret=hdrs ENVID=q+201\r\n")
	c.want("501 5.5.4*", "501 5.5.4*", "501 5.5.4*", "501 5.5.4*", "250*")
	c.send("RCPT TO:<bob@office.example> NOTIFY=NEVER,SUCCESS\r\nRCPT TO:<bob@office.example> NOTIFY=\r\n" +
		"RCPT TO:<bob@office.example> ORCPT=bob\r\nRCPT TO:<bob@office.example> ORCPT=rfc822;a+0Ab\r\n" +
		"RCPT TO:<bob@office.example> ORCPT=utf-8;\xc3\xa4@x\r\nRCPT TO:<bob@office.example> RET=FULL\r\n" +
		"RCPT TO:<ann@office.example> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb@x.example\r\nRCPT TO:<bob@office.example> NOTIFY=NEVER\r\n")
	c.want("501 5.5.4*", "501 5.5.4*", "501 5.5.4*", "501 5.5.4*", "501 5.5.4*", "555 5.5.4*", "250*", "250*")
	c.send("DATA\r\nx\r\n.\r\nQUIT\r\n")
	c.want("354*", "250*", "221*")
	l := o.all()[0]
	want := []relay.RcptParams{{Notify: relay.NotifySuccess | relay.NotifyDelay, ORcpt: "rfc822;a+b@x.example"}, {Notify: relay.NotifyNever}}
	if l.params.Ret != relay.RetHeaders || l.params.EnvID != "q 1" || len(l.rcptParams) != 2 || l.rcptParams[0] != want[0] || l.rcptParams[1] != want[1] {
		t.Errorf("%+v %+v", l.params, l.rcptParams)
	}
}

// TestStrangersAskForNoReports: a report would go to whomever they name as the sender.
func TestStrangersAskForNoReports(t *testing.T) {
	t.Parallel()
	_, addr := listen(t, config(&office{}))
	c := dial(t, addr)
	c.want("220*")
	c.send("EHLO c\r\n")
	if r := c.reply(); strings.Contains(r, "DSN") {
		t.Fatalf("DSN is offered: %q", r)
	}
	c.send("MAIL FROM:<x@y.example> RET=HDRS\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example> NOTIFY=SUCCESS\r\n")
	c.want("555 5.5.4*", "250*", "555 5.5.4*")
}
