package mx

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

func reuse(cfg *Config) { cfg.Timeouts.Idle = 5 * time.Second }

func TestReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING"}}
		n := partner(r)
		c := n.client(reuse)
		for i := range 3 {
			res := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(fmt.Sprint(i, "\r\n")))[0]
			if res.Outcome != relay.Delivered || r.conns != 1 || r.said("EHLO") != 1 || r.said("QUIT") != 0 {
				t.Errorf("%+v; said %q", res, r.lines)
			}
			time.Sleep(4 * time.Second)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.said("QUIT") != 1 {
			t.Errorf("said %q", r.lines)
		}
		c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))
		c.Close()
		if r.conns != 2 || r.said("QUIT") != 2 || len(r.mails) != 4 {
			t.Errorf("%d connections, said %q", r.conns, r.lines)
		}
		n.wg.Wait()
	})
}

// TestReuseDead: a kept connection that has died costs a new one and no attempt.
func TestReuseDead(t *testing.T) {
	for _, reply := range []string{drop, "421 4.4.2 idle for too long"} {
		synctest.Test(t, func(t *testing.T) {
			mails := 0
			r := &remote{ext: []string{"PIPELINING"}, on: map[string]func(string) string{"MAIL": func(string) string {
				if mails++; mails == 2 {
					return reply
				}
				return ""
			}}}
			n := partner(r)
			c := n.client(reuse)
			for range 2 {
				res := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
				if res.Outcome != relay.Delivered {
					t.Errorf("%+v", res)
				}
			}
			c.Close()
			n.wg.Wait()
			if r.conns != 2 || len(r.mails) != 2 {
				t.Errorf("%d connections, %d letters", r.conns, len(r.mails))
			}
		})
	}
}

// TestReuseRefused: a refusal on a kept connection is a refusal.
func TestReuseRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING"}}
		n := partner(r)
		c := n.client(reuse)
		c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))
		r.mu.Lock()
		r.on = map[string]func(string) string{"RCPT": always("550 5.1.1 no"), "DATA": always("554 5.5.1 nobody")}
		r.mu.Unlock()
		res := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
		// Its MAIL still stands: such a connection is not kept.
		synctest.Wait()
		if res.Outcome != relay.Failed || r.conns != 1 || r.said("QUIT") != 1 || c.idle.count != 0 {
			t.Errorf("%+v", res)
		}
		c.Close()
		n.wg.Wait()
	})
}

// TestReuseStray: a remote that says more than it was asked is not spoken to again, or every
// later answer would be taken for that of the command before.
func TestReuseStray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("END", raw+"250 ok\r\n250 stray\r\n")
		n := partner(r)
		c := n.client(reuse)
		for range 2 {
			c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))
		}
		c.Close()
		n.wg.Wait()
		if r.conns != 2 {
			t.Errorf("%d connections", r.conns)
		}
	})
}

// TestIdleBounds: many deliveries at once leave a bounded number of connections behind.
func TestIdleBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := partner(&remote{})
		c := n.client(reuse)
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() {
				c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))
			})
		}
		wg.Wait()
		synctest.Wait()
		if c.idle.count > maxIdlePerKey {
			t.Errorf("%d idle connections", c.idle.count)
		}
		c.Close()
		n.wg.Wait()
		if c.idle.count != 0 || len(c.idle.waiting) != 0 {
			t.Errorf("%d idle connections after Close", c.idle.count)
		}
		res := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
		n.wg.Wait()
		if res.Outcome != relay.Delivered || c.idle.count != 0 {
			t.Errorf("after Close: %+v", res)
		}
	})
}

// TestCloseStalled: a remote that never answers QUIT does not hold up Close.
func TestCloseStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := partner(saying("QUIT", stall))
		c := n.client(reuse)
		c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))
		start := time.Now()
		c.Close()
		n.wg.Wait()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

// BenchmarkDeliver sends 10 KiB letters over loopback TCP into a sink that does nothing else.
func BenchmarkDeliver(b *testing.B) {
	for name, keep := range map[string]time.Duration{"reuse": time.Second, "dial": -1} {
		b.Run(name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { sink(conn) })
				}
			})
			route := Route{To: "*", Via: "[127.0.0.1]", Port: int(ln.Addr().(*net.TCPAddr).Port)}
			c := New(Config{Hostname: "mail.office.example", Resolver: &network{}, Routes: []Route{route}, Timeouts: Timeouts{Idle: keep}})
			letter := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 142)
			b.SetParallelism(5)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					res := c.Deliver(b.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(letter))[0]
					if res.Outcome != relay.Delivered {
						b.Errorf("%+v", res)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			c.Close()
			ln.Close()
			wg.Wait()
		})
	}
}

// sink answers a well-behaved client with as little work as possible.
func sink(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	say(conn, "220 sink")
	for inData, tail := false, ""; ; {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		got := tail + string(buf[:n])
		switch {
		case inData && strings.HasSuffix(got, "\r\n.\r\n"):
			inData, tail = false, ""
			say(conn, "250 2.0.0 OK")
		case inData:
			tail = got[max(0, len(got)-5):]
		case strings.HasPrefix(got, "EHLO"):
			say(conn, "250-sink\r\n250 PIPELINING")
		case strings.HasSuffix(got, "DATA\r\n"):
			inData, tail = true, ""
			say(conn, "250 OK\r\n250 OK\r\n354 go")
		case strings.HasPrefix(got, "QUIT"):
			say(conn, "221 bye")
			return
		}
	}
}

var _ relay.Resolver = (*network)(nil)
