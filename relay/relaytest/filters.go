package relaytest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// listenOn listens on "host:port" or "unix:/path".
func listenOn(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}

// Rspamd answers to /checkv2 and /ping as rspamd does, with what SetReply said.
type Rspamd struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}

	mu    sync.Mutex
	code  int
	reply string
	asked []Asked
}

// Asked is one letter a program was shown. Of a large one Text is the first 64 KiB.
type Asked struct {
	Header http.Header // of the request; rspamd alone
	Size   int64
	Text   string
}

// NewRspamd starts one at "host:port" or "unix:/path"; it finds nothing in any letter.
func NewRspamd(address string) (*Rspamd, error) {
	l, err := listenOn(address)
	if err != nil {
		return nil, err
	}
	r := &Rspamd{listener: l, done: make(chan struct{}), code: http.StatusOK, reply: `{"action":"no action","score":0,"required_score":15}`}
	r.server = &http.Server{Handler: r}
	go func() {
		defer close(r.done)
		if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return r, nil
}

// Addr is where it listens, "host:port".
func (r *Rspamd) Addr() string { return r.listener.Addr().String() }

// Close hangs up on everybody.
func (r *Rspamd) Close() error {
	err := r.server.Close()
	<-r.done
	return err
}

// SetReply has it answer so from now on.
func (r *Rspamd) SetReply(code int, json string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code, r.reply = code, json
}

// Asked returns the letters it was shown.
func (r *Rspamd) Asked() []Asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Asked(nil), r.asked...)
}

// ServeHTTP implements http.Handler.
func (r *Rspamd) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/ping" {
		io.WriteString(w, "pong\r\n")
		return
	}
	a := Asked{Header: req.Header.Clone()}
	text := head{most: 64 << 10}
	a.Size, _ = io.Copy(&text, req.Body)
	a.Text = text.String()
	r.mu.Lock()
	r.asked = append(r.asked, a)
	code, reply := r.code, r.reply
	r.mu.Unlock()
	w.WriteHeader(code)
	io.WriteString(w, reply)
}

// head keeps the beginning of what is written to it.
type head struct {
	bytes.Buffer
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), max(0, h.most-h.Len()))])
	return len(p), nil
}

// Eicar is the text that every virus scanner takes for a virus, in two halves, so that none takes
// this file for one.
const Eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`

// Clamd answers to zINSTREAM and zPING as clamd does; it finds Eicar in the octets it is sent, and
// decodes nothing.
type Clamd struct {
	Limit int64 // of a stream, in octets; 0: none. Set before the first letter

	listener net.Listener
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu    sync.Mutex
	asked []Asked
}

// NewClamd starts one at "host:port" or "unix:/path".
func NewClamd(address string) (*Clamd, error) {
	l, err := listenOn(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Clamd{listener: l, cancel: cancel}
	c.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.work.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				c.serve(conn)
			})
		}
	})
	return c, nil
}

// Addr is where it listens, "host:port".
func (c *Clamd) Addr() string { return c.listener.Addr().String() }

// Close hangs up on everybody.
func (c *Clamd) Close() error {
	err := c.listener.Close()
	c.cancel()
	c.work.Wait()
	return err
}

// Asked returns the letters it was shown.
func (c *Clamd) Asked() []Asked {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Asked(nil), c.asked...)
}

func (c *Clamd) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	command, err := r.ReadString(0)
	if err != nil {
		return
	}
	switch command {
	case "zPING\x00":
		io.WriteString(conn, "PONG\x00")
	case "zINSTREAM\x00":
		io.WriteString(conn, c.scan(r))
	default:
		io.WriteString(conn, "UNKNOWN COMMAND\x00")
	}
}

func (c *Clamd) scan(r io.Reader) string {
	var a Asked
	found, text, tail := false, head{most: 64 << 10}, []byte(nil)
	for {
		var n uint32
		if binary.Read(r, binary.BigEndian, &n) != nil {
			return ""
		}
		if n == 0 {
			break
		}
		if a.Size += int64(n); c.Limit > 0 && a.Size > c.Limit {
			return "INSTREAM size limit exceeded. ERROR\x00"
		}
		piece := make([]byte, n)
		if _, err := io.ReadFull(r, piece); err != nil {
			return ""
		}
		text.Write(piece)
		tail = append(tail, piece...)
		found = found || bytes.Contains(tail, []byte(Eicar))
		tail = tail[max(0, len(tail)-len(Eicar)):]
	}
	a.Text = text.String()
	c.mu.Lock()
	c.asked = append(c.asked, a)
	c.mu.Unlock()
	if found {
		return "stream: Eicar-Test-Signature FOUND\x00"
	}
	return "stream: OK\x00"
}
