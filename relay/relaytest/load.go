package relaytest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Load is a burst of letters for one SMTP server. Every letter is acknowledged before the next
// of its session begins; the sessions run side by side. Addresses must lie on loopback.
type Load struct {
	Addr       string
	Sessions   int                    // at the same time
	Letters    int                    // in all
	PerSession int                    // letters before a session quits and connects anew; 0: all of its share
	First      int                    // the number of the first letter, in its X-Number field and below
	Size       int                    // octets of a letter, about
	From       string                 // reverse-path; default load@partner.example
	Rcpt       func(n int) []string   // recipients of letter n
	Accepted   func(n int, id string) // called with the queue ID of every 250; may be nil
}

// LoadResult is what a burst came to.
type LoadResult struct {
	Letters int
	Took    time.Duration
	Octets  int64
	P50     time.Duration // from MAIL to the 250 of the letter
	P99     time.Duration
}

// PerSecond is the rate of acknowledged letters.
func (r LoadResult) PerSecond() float64 { return float64(r.Letters) / r.Took.Seconds() }

// Run sends the burst. The first letter that is not answered 250 ends it with an error; the
// result then tells how far it came.
func (l Load) Run(ctx context.Context) (LoadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, octets atomic.Int64
	took := make([][]time.Duration, l.Sessions)
	body := loadBody(l.Size)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range l.Sessions {
		wg.Go(func() {
			for ctx.Err() == nil && next.Load() < int64(l.Letters) {
				durations, err := l.session(ctx, &next, &octets, body)
				took[i] = append(took[i], durations...)
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	r := LoadResult{Letters: len(all), Took: time.Since(start), Octets: octets.Load()}
	if len(all) > 0 {
		r.P50, r.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, nil
}

func (l Load) session(ctx context.Context, next, octets *atomic.Int64, body []byte) (took []time.Duration, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &loadConn{r: bufio.NewReader(conn), w: conn}
	c.expect("220")
	c.send("EHLO load.example\r\n")
	c.expect("250")
	for sent := 0; c.err == nil && (l.PerSession == 0 || sent < l.PerSession); sent++ {
		n := int(next.Add(1)) - 1
		if n >= l.Letters {
			break
		}
		begin := time.Now()
		n += l.First
		id := c.letter(l, n, body)
		if c.err != nil {
			break
		}
		took = append(took, time.Since(begin))
		octets.Add(int64(len(body)))
		if l.Accepted != nil {
			l.Accepted(n, id)
		}
	}
	c.send("QUIT\r\n")
	c.expect("221")
	return took, c.err
}

// loadConn keeps the first error, so that a dialogue reads as a list of lines.
type loadConn struct {
	r   *bufio.Reader
	w   net.Conn
	err error
}

func (c *loadConn) letter(l Load, n int, body []byte) (id string) {
	from := l.From
	if from == "" {
		from = "load@partner.example"
	}
	rcpts := l.Rcpt(n)
	c.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<" + strings.Join(rcpts, ">\r\nRCPT TO:<") + ">\r\nDATA\r\n")
	c.expect("250")
	for range rcpts {
		c.expect("250")
	}
	c.expect("354")
	c.sendText(fmt.Appendf(nil, "X-Number: %d\r\n", n), body)
	_, id, _ = strings.Cut(c.expect("250"), "queued as ")
	return id
}

func (c *loadConn) send(s string) {
	if c.err == nil {
		_, c.err = c.w.Write([]byte(s))
	}
}

// sendText sends a letter without copying it: many sessions send the same.
func (c *loadConn) sendText(first, body []byte) {
	if c.err == nil {
		_, c.err = (&net.Buffers{first, body}).WriteTo(c.w)
	}
}

func (c *loadConn) expect(code string) string {
	for c.err == nil {
		line, err := c.r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		switch {
		case err != nil:
			c.err = fmt.Errorf("relaytest: load: waiting for %s: %w", code, err)
		case !strings.HasPrefix(line, code):
			c.err = fmt.Errorf("relaytest: load: want %s, got %q", code, line)
		case len(line) < 4 || line[3] != '-':
			return line
		}
	}
	return ""
}

// loadBody is a letter of about size octets with the dot that ends it.
func loadBody(size int) []byte {
	var b bytes.Buffer
	b.WriteString("From: load@partner.example\r\nTo: ann@office.example\r\nSubject: load\r\n\r\n")
	for b.Len() < size-80 {
		b.WriteString("The quick brown fox jumps over the lazy dog, and then it does so once more.\r\n")
	}
	b.WriteString("The end.\r\n.\r\n")
	return b.Bytes()
}
