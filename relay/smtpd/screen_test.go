package smtpd_test

import (
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
	"relayd/relay/smtpd"
)

// screen is a Screen that remembers what it was told.
type screen struct {
	wait    time.Duration
	refusal *relay.Reply // of a connection
	breach  *relay.Reply

	mu   sync.Mutex
	told []string
}

func (s *screen) tell(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, what)
}

func (s *screen) Visit(netip.Addr) (time.Duration, *relay.Reply) {
	s.tell("visit")
	return s.wait, s.refusal
}

func (s *screen) Breach(_ netip.Addr, rule string) *relay.Reply {
	s.tell(rule)
	return s.breach
}

var gone = &relay.Reply{Code: 554, Status: relay.Status{5, 5, 1}, Text: "out of turn"}

// withScreen runs a session of its own in a bubble and wants the screen to be told so.
func withScreen(t *testing.T, name string, s *screen, told []string, f func(t *testing.T, c *client)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := config(&office{})
			cfg.Screen = s
			if told == nil {
				cfg.Trusted = func(netip.Addr) bool { return true }
			}
			f(t, pipeClient(t, servePipes(t, cfg), time.Hour))
		})
		if len(told) != len(s.told) {
			t.Fatalf("told %q, want %q", s.told, told)
		}
		for i := range told {
			if told[i] != s.told[i] {
				t.Fatalf("told %q, want %q", s.told, told)
			}
		}
	})
}

func TestScreen(t *testing.T) {
	wait := 10 * time.Second
	withScreen(t, "refused", &screen{refusal: gone}, []string{"visit"}, func(_ *testing.T, c *client) {
		c.want("554 5.5.1 out of turn", "EOF")
	})
	withScreen(t, "patient", &screen{wait: wait, breach: gone}, []string{"visit"}, func(t *testing.T, c *client) {
		start := time.Now()
		c.want("220*")
		if d := time.Since(start); d != wait {
			t.Errorf("the greeting came after %v", d)
		}
		c.do("EHLO c.example", "250*")
		c.send("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
		c.want("250*", "250*", "354*")
		c.do("x\r\n.", "250*")
	})
	withScreen(t, "early", &screen{wait: wait, breach: gone}, []string{"visit", "early"}, func(t *testing.T, c *client) {
		time.Sleep(wait - time.Second)
		c.send("E")
		c.want("554 5.5.1 out of turn", "EOF")
	})
	withScreen(t, "early, and observed", &screen{wait: wait}, []string{"visit", "early"}, func(t *testing.T, c *client) {
		// Once is enough to be told of.
		c.send("EHLO c.example\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\nx\r\n.\r\n")
		c.want("220*", "250*", "250*", "250*", "354*", "250 2.0.0 queued*")
	})
	withScreen(t, "gone while it waits", &screen{wait: wait, breach: gone}, []string{"visit"}, func(t *testing.T, c *client) {
		c.conn.Close()
		synctest.Wait()
	})
	withScreen(t, "HTTP early", &screen{wait: wait, breach: gone}, []string{"visit", "http"}, func(t *testing.T, c *client) {
		c.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<x@y.example>\r\n")
		c.want("220*", "554 5.5.1 out of turn", "EOF")
	})
	withScreen(t, "HTTP later, without words", &screen{}, []string{"visit", "http"}, func(t *testing.T, c *client) {
		c.want("220*")
		c.do("GET / HTTP/1.1", "421 4.7.0 *HTTP")
		c.want("EOF")
	})
	withScreen(t, "TLS early", &screen{wait: wait, breach: gone}, []string{"visit"}, func(t *testing.T, c *client) {
		c.send("\x16\x03\x01\x00\x05hello")
		c.want("220*", "421 4.7.0 TLS starts with STARTTLS*", "EOF")
	})
	withScreen(t, "behind EHLO", &screen{breach: gone}, []string{"visit", "pipelining"}, func(t *testing.T, c *client) {
		c.want("220*")
		c.send("EHLO c.example\r\nNOOP\r\n")
		c.want("554 5.5.1 out of turn", "EOF")
	})
	withScreen(t, "a letter before 354", &screen{breach: gone}, []string{"visit", "pipelining"}, func(t *testing.T, c *client) {
		c.want("220*")
		c.do("EHLO c.example", "250*")
		c.send("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\nx\r\n.\r\n")
		c.want("250*", "250*", "554 5.5.1 out of turn", "EOF")
	})
	withScreen(t, "behind QUIT", &screen{breach: gone}, []string{"visit"}, func(t *testing.T, c *client) {
		c.want("220*")
		c.send("QUIT\r\nQUIT\r\n")
		c.want("221*", "EOF")
	})
	withScreen(t, "ours", &screen{wait: wait, breach: gone, refusal: gone}, nil, func(t *testing.T, c *client) {
		start := time.Now()
		c.send("EHLO c.example\r\nNOOP\r\n")
		c.want("220*", "250*", "250*")
		if time.Since(start) != 0 {
			t.Error("our own people waited")
		}
	})
}

// A server that stops does not wait for those who wait for their greeting, and whoever was refused or
// left has made room.
func TestScreenLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{wait: time.Hour}
		cfg := config(&office{})
		cfg.Screen, cfg.Gate = s, smtpd.NewGate()
		ln := newPipes()
		srv := smtpd.New(cfg)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(t.Context(), ln) }()
		waiting := pipeClient(t, ln, 2*time.Hour)
		synctest.Wait()
		s.refusal = gone
		refused := pipeClient(t, ln, 2*time.Hour)
		refused.want("554*", "EOF")
		if n := cfg.Gate.Count(); n != 1 {
			t.Errorf("%d connections count, want 1", n)
		}
		start := time.Now()
		read := make(chan string, 1)
		go func() { b, _ := io.ReadAll(waiting.conn); read <- string(b) }()
		if err := srv.Shutdown(t.Context()); err != nil || time.Since(start) > time.Minute {
			t.Errorf("stopped after %v: %v", time.Since(start), err)
		}
		if got := <-read; !match("421 4.3.2 *", got) {
			t.Errorf("it heard %q", got)
		}
		if err := <-served; err != nil || cfg.Gate.Count() != 0 {
			t.Errorf("%v, %d connections count", err, cfg.Gate.Count())
		}
	})
}
