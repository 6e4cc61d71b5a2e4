package smtpd_test

import (
	"crypto/tls"
	netsmtp "net/smtp"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Two clients we did not write get their letters through, byte for byte.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	text := "Subject: x\r\n\r\n.\r\n..\r\n.leading\r\n\xe4\xf6 8-bit\r\n" + strings.Repeat("x", 5000) + "\r\n\r\n"
	o := &office{}
	_, addr := listen(t, config(o))
	if err := netsmtp.SendMail(addr, nil, "x@y.example", []string{"ann@office.example"}, []byte(text)); err == nil {
		t.Error("net/smtp took a certificate it cannot know")
	}
	c, err := netsmtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	steps := []error{
		c.Hello("c.example"), c.StartTLS(&tls.Config{InsecureSkipVerify: true}),
		c.Auth(netsmtp.PlainAuth("", "ann", "secret", "127.0.0.1")), c.Mail("x@y.example"), c.Rcpt("ann@office.example"),
	}
	w, err := c.Data()
	steps = append(steps, err)
	_, err = w.Write([]byte(text))
	for _, err := range append(steps, err, w.Close(), c.Quit()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	g, err := smtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Auth(sasl.NewLoginClient("ann", "secret")); err != nil {
		t.Fatal(err)
	}
	if err := g.SendMail("x@y.example", []string{"ann@office.example", "bob@office.example"}, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := g.Quit(); err != nil {
		t.Fatal(err)
	}
	for i, l := range o.all() {
		// net/smtp asks for SMTPUTF8 wherever it is offered.
		if l.body != text || len(l.rcpts) != i+1 || !strings.HasSuffix(l.origin.Proto, "SMTPSA") {
			t.Errorf("letter %d: %d octets for %v with %s", i, len(l.body), l.rcpts, l.origin.Proto)
		}
	}
	if n := len(o.all()); n != 2 {
		t.Errorf("%d letters", n)
	}
}

// Many sessions at once do not meet in anything (S1.13, S3.6); the race detector looks on.
func TestManySessions(t *testing.T) {
	t.Parallel()
	o := &office{}
	_, addr := listen(t, config(o))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 5 {
				if err := netsmtpPlain(addr); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(o.all()); n != 100 {
		t.Errorf("%d letters", n)
	}
}

func netsmtpPlain(addr string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SendMail("x@y.example", []string{"ann@office.example"}, strings.NewReader("hi\r\n")); err != nil {
		return err
	}
	return c.Quit()
}
