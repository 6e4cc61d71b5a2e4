package filter

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"relayd/relay"
)

// rspamd asks a normal worker over HTTP, one request a connection.
type rspamd struct {
	hostname string
	greylist *greylist
}

const maxReply = 1 << 20 // octets of the JSON

func (r *rspamd) check(conn net.Conn, l *Letter) (Verdict, error) {
	reply, err := r.ask(conn, l)
	if err != nil {
		return Verdict{}, err
	}
	v := reply.verdict()
	if reply.Action == "greylist" && !l.Ours && !r.greylist.seen(l, time.Now()) {
		v.Action = Defer
		v.Reply = relay.Reply{Code: 451, Status: relay.Status{4, 7, 1}, Text: "please try again in a few minutes, as every mail server does"}
	}
	return v, nil
}

func (r *rspamd) ask(conn net.Conn, l *Letter) (*rspamdReply, error) {
	body := &heldReader{r: io.MultiReader(bytes.NewReader(l.Header), l.Body())}
	req := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: "rspamd", Path: "/checkv2"}, Host: "rspamd",
		ProtoMajor: 1, ProtoMinor: 1, Header: r.header(l), Body: io.NopCloser(body), ContentLength: l.Size, Close: true,
	}
	sent := req.Write(conn)
	if body.err != nil {
		return nil, errors.Join(errReading, body.err)
	}
	// It may have said why before it hung up.
	resp, err := http.ReadResponse(bufio.NewReader(&bounded{conn, maxReply}), req)
	if err != nil {
		return nil, errors.Join(sent, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return nil, errLimit
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %s", sentence(resp.Status, "nothing"))
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return readRspamd(text)
}

// header says what the envelope says, as rspamd's protocol has it.
func (r *rspamd) header(l *Letter) http.Header {
	h := http.Header{"User-Agent": {"relayd"}}
	set := func(name, value string) {
		if value != "" {
			h[name] = append(h[name], headerValue(value))
		}
	}
	o := l.Env.Origin
	if o.Client.IsValid() {
		set("Ip", o.Client.Addr().Unmap().WithZone("").String())
	}
	set("Helo", o.Helo)
	set("Hostname", o.Name)
	set("User", o.User)
	set("From", l.Env.From.String())
	for _, rcpt := range l.rcpts() {
		set("Rcpt", rcpt)
	}
	set("Queue-Id", string(l.Env.ID))
	set("Mta-Name", r.hostname)
	if version, cipher, ok := strings.Cut(o.TLS, " "); ok {
		set("Tls-Version", version)
		set("Tls-Cipher", cipher)
	}
	return h
}

// headerValue keeps a stranger's words on their line.
func headerValue(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// heldReader tells the errors of the letter from those of the connection.
type heldReader struct {
	r   io.Reader
	err error
}

func (h *heldReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if err != nil && err != io.EOF {
		h.err = err
	}
	return n, err
}

func (r *rspamd) ping(conn net.Conn) error {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "rspamd", Path: "/ping"}, Host: "rspamd",
		ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"User-Agent": {"relayd"}}, Close: true}
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(&bounded{conn, maxReply}), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s to a ping", sentence(resp.Status, "nothing"))
	}
	return nil
}
