package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// TestSiege attacks the daemon in every way that hazards.md knows to cost memory, time or
// goroutines. The bound of each is what the daemon may hold at its worst moment, the test binary's
// own pages included.
func TestSiege(t *testing.T) {
	for _, a := range []struct {
		name   string
		bound  int
		attack func(s *siege)
	}{
		{"a thousand connections", 60e6, (*siege).thousand},
		{"trickling", 60e6, (*siege).trickling},
		{"half a TLS handshake", 60e6, (*siege).halfTLS},
		{"lines of 100 MB", 60e6, (*siege).longLines},
		{"letters of one line", 60e6, (*siege).oneLine},
		{"a million tiny commands", 60e6, (*siege).tinyCommands},
		{"10,000 recipients", 60e6, (*siege).recipients},
		{"headers without end", 140e6, (*siege).headers},
		{"nobody reads", 60e6, (*siege).deaf},
		{"resets", 60e6, (*siege).resets},
		{"POP3 is not read", 60e6 + 2*64<<20, (*siege).deafReader},
		{"guessing", 60e6 + 2*64<<20, (*siege).guessing},
		{"a remote that never ends its reply", 60e6, (*siege).floodingRemote},
	} {
		t.Run(a.name, func(t *testing.T) {
			s := besiege(t)
			s.run(a.bound, func() { a.attack(s) })
		})
	}
}

// thousand connects as many as there may be; the next are told to come later, and half of them
// leave without a word.
func (s *siege) thousand() {
	const n = 990
	inside := sync.WaitGroup{}
	inside.Add(n)
	leave := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		s.strangers("smtp", n, func(d *dialogue, i int) error {
			d.expect("220")
			d.say("EHLO stranger.example")
			inside.Done()
			<-leave
			if i%2 == 0 {
				return reset(d)
			}
			d.expectAfter("QUIT", "221")
			return d.err
		})
	})
	inside.Wait()
	defer wg.Wait()
	defer close(leave)
	refused := 0
	for i := range 100 {
		d, err := s.stranger("smtp", n+10+i)
		if err != nil {
			s.t.Error(err)
			return
		}
		defer d.Close()
		if line := d.reply(); strings.HasPrefix(line, "421 4.3.2 ") {
			refused++
		}
	}
	if refused != 100-9 {
		s.t.Errorf("%d of 100 connections were refused, 9 fit in", refused)
	}
}

func (d *dialogue) expectAfter(command, prefix string) {
	d.write(command + "\r\n")
	d.expect(prefix)
}

// reset closes a connection so that the other side sees a reset.
func reset(d *dialogue) error {
	if err := d.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	return d.Close()
}

// trickling sends octets one at a time, half of them in a letter, and goes away.
func (s *siege) trickling() {
	s.strangers("smtp", 900, func(d *dialogue, i int) error {
		d.expect("220")
		if i%2 == 0 {
			d.say("EHLO stranger.example")
			d.say("MAIL FROM:<a@stranger.example>")
			d.say("RCPT TO:<ann@office.test>")
			d.expectAfter("DATA", "354")
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 100 {
			d.write("x")
			<-tick.C
		}
		return d.err
	})
}

// clientHello is the first flight of a TLS client.
func clientHello() []byte {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		tls.Client(far, &tls.Config{InsecureSkipVerify: true}).Handshake()
		far.Close()
	}()
	hello := make([]byte, 4<<10)
	n, err := near.Read(hello)
	if err != nil {
		panic(err)
	}
	return hello[:n]
}

// halfTLS begins handshakes and lets them hang, before, within and after the client's part.
func (s *siege) halfTLS() {
	hello := clientHello()
	hang := time.NewTimer(2 * time.Second)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { <-hang.C; close(over) })
	part := func(i int) string { return string(hello[:i%3*len(hello)/2]) }
	wg.Go(func() {
		s.strangers("submissions", 450, func(d *dialogue, i int) error {
			d.write(part(i))
			<-over
			return d.err
		})
	})
	s.strangers("smtp", 450, func(d *dialogue, i int) error {
		d.expect("220")
		d.say("EHLO stranger.example")
		d.expectAfter("STARTTLS", "220")
		d.write(part(i))
		<-over
		return d.err
	})
	wg.Wait()
}

// pour writes n octets of one letter, and is content if the other side hangs up meanwhile.
func pour(d *dialogue, n int) {
	piece := bytes.Repeat([]byte{'x'}, 1<<20)
	for ; n > 0; n -= len(piece) {
		if _, err := d.Write(piece); err != nil {
			return
		}
	}
}

func (s *siege) longLines() {
	s.strangers("smtp", 8, func(d *dialogue, i int) error {
		d.expect("220")
		d.say("EHLO stranger.example")
		if i%4 > 0 {
			pour(d, 100e6) // it is cut off, and perhaps hears why
			return nil
		}
		d.say("MAIL FROM:<a@stranger.example>")
		d.say("RCPT TO:<ann@office.test>")
		d.expectAfter("DATA", "354")
		d.write("Subject: x\r\n\r\n")
		pour(d, 100e6)
		d.write("\r\n.\r\n")
		d.expect("552 5.3.4 ")
		d.expectAfter("NOOP", "250")
		return d.err
	})
}

// oneLine sends letters that are legal but for the length of their lines, one of them without a
// header's end.
func (s *siege) oneLine() {
	s.strangers("smtp", 4, func(d *dialogue, i int) error {
		d.expect("220")
		d.say("EHLO stranger.example")
		d.say("MAIL FROM:<a@stranger.example>")
		d.say("RCPT TO:<ann@office.test>")
		d.expectAfter("DATA", "354")
		if i%2 == 0 {
			d.write("\r\n")
		}
		pour(d, 40e6)
		d.write("\r\n.\r\n")
		d.expect("250 ")
		return d.err
	})
}

// tinyCommands sends a million commands that lead nowhere. Every one of them ends in a 421, long
// before the stranger is through.
func (s *siege) tinyCommands() {
	floods := []string{"NOOP\r\n", "RSET\r\n", "VRFY x\r\n", "HELP\r\n", "EHLO x\r\n", "MAIL FROM:<>\r\nRSET\r\n", "BDAT 0\r\n", "\r\n", "x\r\n", "noop\n"}
	const n, each = 50, 20_000
	s.strangers("smtp", n, func(d *dialogue, i int) error {
		d.expect("220")
		d.say("EHLO stranger.example")
		if i%len(floods) == 6 {
			d.say("MAIL FROM:<a@stranger.example>")
			d.say("RCPT TO:<ann@office.test>")
		}
		if d.err != nil {
			return d.err
		}
		last, answers := "", 0
		var wg sync.WaitGroup
		// No more than relayd takes in while it hangs up, or the 421 would be lost.
		flood := strings.Repeat(floods[i%len(floods)], each)
		wg.Go(func() { io.WriteString(d.Conn, flood[:min(len(flood), 240_000)]) })
		for line := d.line(); d.err == nil; line = d.line() {
			last = line
			answers++
		}
		wg.Wait()
		if !strings.HasPrefix(last, "421 4.7.0 ") || answers > 20_000 {
			return fmt.Errorf("%q: %d answers, the last %q", floods[i%len(floods)], answers, last)
		}
		return nil
	})
}

// recipients names 10,000 of them. The first 1,000 get the letter; somebody who goes on for
// thousands after hearing that it is enough is sent away.
func (s *siege) recipients() {
	s.strangers("smtp", 8, func(d *dialogue, i int) error {
		d.expect("220")
		d.say("EHLO stranger.example")
		d.say("MAIL FROM:<a@stranger.example>")
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := range 10_000 {
				if _, err := fmt.Fprintf(d.Conn, "RCPT TO:<ann+%d.%d@office.test>\r\n", i, n); err != nil {
					return
				}
			}
		})
		defer wg.Wait()
		var taken, later int
		for {
			line := d.reply()
			switch {
			case strings.HasPrefix(line, "250 "):
				taken++
			case strings.HasPrefix(line, "452 4.5.3 "):
				later++
			case strings.HasPrefix(line, "421 4.7.0 ") && taken == 1000 && later >= 990:
				return nil
			default:
				return fmt.Errorf("%d taken, %d refused, then %q, %v", taken, later, line, d.err)
			}
		}
	})
}

// headers sends more of a header than is ever looked at, and stops there.
func (s *siege) headers() {
	s.strangers("smtp", 900, func(d *dialogue, i int) error {
		d.expect("220")
		d.say("EHLO stranger.example")
		d.say("MAIL FROM:<a@stranger.example>")
		d.say("RCPT TO:<ann@office.test>")
		d.expectAfter("DATA", "354")
		d.write(strings.Repeat("To: "+strings.Repeat("x@y.example, ", 70)+"\r\n", 300_000/916))
		return d.err
	})
}

// deaf asks and asks and never reads an answer.
func (s *siege) deaf() {
	var wg sync.WaitGroup
	for _, service := range []string{"smtp", "pop3"} {
		wg.Go(func() {
			s.strangers(service, 100, func(d *dialogue, i int) error {
				if err := d.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
					return err
				}
				d.SetWriteDeadline(time.Now().Add(2 * time.Second))
				ask := strings.Repeat([]string{"HELP\r\n", "CAPA\r\n"}[len(service)%2], 100)
				for range 10_000 {
					if _, err := io.WriteString(d.Conn, ask); err != nil {
						return nil
					}
				}
				return nil
			})
		})
	}
	wg.Wait()
}

// resets connects and breaks off, again and again, with and without something said.
func (s *siege) resets() {
	var wg sync.WaitGroup
	for lane := range 20 {
		wg.Go(func() {
			for i := range 200 {
				d, err := s.stranger([]string{"smtp", "pop3", "submissions"}[i%3], lane*50)
				if err != nil {
					s.t.Error(err)
					return
				}
				if i%2 == 0 {
					d.write("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@office.test>\r\nDATA\r\nhalf a let")
				}
				if err := reset(d); err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// deafReader logs in and asks for ever so much mail that it does not read.
func (s *siege) deafReader() {
	_, err := relaytest.Load{
		Addr: s.d.addrs["smtp"], Sessions: 1, Letters: 1, Size: 8 << 20,
		Rcpt: func(int) []string { return []string{"ann@office.test"} },
	}.Run(s.t.Context())
	if err != nil {
		s.t.Error(err)
		return
	}
	s.strangers("pop3", 1, func(d *dialogue, _ int) error {
		d.expect("+OK")
		d.pop("USER ann@office.test")
		d.write("PASS correct horse battery\r\n")
		d.expect("+OK")
		d.SetWriteDeadline(time.Now().Add(2 * time.Second))
		io.WriteString(d.Conn, strings.Repeat("RETR 1\r\n", 200_000))
		return d.err
	})
}

// guessing tries passwords from many addresses at once. Each guess costs 64 MiB while it lasts;
// none of that may stay with us.
func (s *siege) guessing() {
	s.strangers("pop3", 8, func(d *dialogue, i int) error {
		d.expect("+OK")
		d.pop("USER ann@office.test")
		d.write("PASS wrong\r\n")
		d.expect("-ERR [AUTH] ")
		return d.err
	})
	if now := s.memory("VmRSS"); !raceEnabled && now > 50e6 {
		s.t.Errorf("%d octets are held after the last guess", now)
	}
}

// floodingRemote has letters for hosts that answer without end, each at another stage of a session.
// The letters stay in the queue.
func (s *siege) floodingRemote() {
	const each = 5
	var rcpts []string
	for i, stage := range hostileStages {
		mx, err := relaytest.NewMX(fmt.Sprintf("%s:%d", hostileAddr(i), s.mxPort), relaytest.MXScript{
			Rules: []relaytest.MXRule{{Stage: stage, Action: relaytest.MXAction{Kind: "flood"}}},
		})
		if err != nil {
			s.t.Error(err)
			return
		}
		s.t.Cleanup(func() { mx.Close() })
		rcpts = append(rcpts, "bob@"+stage+".hostile.test")
	}
	_, err := relaytest.Load{
		Addr: s.d.addrs["smtp"], Sessions: 2, Letters: each * len(rcpts), Size: 2 << 10,
		Rcpt: func(n int) []string { return rcpts[n%len(rcpts) : n%len(rcpts)+1] },
	}.Run(s.t.Context())
	if err != nil {
		s.t.Error(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(siegePatience); s.gauge(`relayd_messages_total{event="deferred"}`) < each*len(rcpts); <-tick.C {
		if time.Now().After(deadline) {
			s.t.Errorf("only %d attempts ended", s.gauge(`relayd_messages_total{event="deferred"}`))
			return
		}
	}
	if n := s.gauge("relayd_queue_items"); n != each*len(rcpts) {
		s.t.Errorf("%d letters are left of %d", n, each*len(rcpts))
	}
}
