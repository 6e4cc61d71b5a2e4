package certs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// acmeWire carries autocert's requests and reads along. autocert tries one challenge after the
// other and in the end says only that none was left; why each failed stands in what the authority
// answered. It also takes challenges that we have no door for out of the authority's offers:
// autocert always tries tls-alpn-01 first, and Let's Encrypt counts what fails.
type acmeWire struct {
	inner *http.Transport
	log   *slog.Logger
	skip  map[string]bool // challenge types

	ctx  context.Context // of all requests; autocert's own have no end but a timeout
	stop context.CancelFunc

	mu       sync.Mutex
	problems map[string]string // by name; under "" those of no name
}

const (
	requestTimeout = time.Minute
	maxAnswer      = 1 << 20 // bytes; a chain has a few KiB
	// pollAtMost bounds the waits that the authority asks for while it validates, and thereby how
	// long a stop may take.
	pollAtMost = 3 * time.Second
	// tries of one request that the authority fails to answer; attempts have longer waits.
	maxTries = 5
	// maxProblem bounds what an authority has us remember and log.
	maxProblem = 1000
)

func newACMEWire(c ACME, log *slog.Logger) *acmeWire {
	w := &acmeWire{log: log, problems: map[string]string{}, skip: map[string]bool{"tls-alpn-01": !c.TLS, "http-01": !c.HTTP}}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.inner = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 15 * time.Second,
		ResponseHeaderTimeout: requestTimeout, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true}
	return w
}

// backoff is how long acme waits before it repeats a request; 0 is the end of it.
func (w *acmeWire) backoff(n int, _ *http.Request, _ *http.Response) time.Duration {
	if n >= maxTries || w.ctx.Err() != nil {
		return 0
	}
	return min(time.Second<<(n-1), pollAtMost)
}

// RoundTrip carries one request and returns the whole answer.
func (w *acmeWire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	res, err := w.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if w.ctx.Err() == nil {
			w.note("", err.Error())
		}
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the authority's answer is larger than 1 MiB")
	}
	if err != nil {
		return nil, err
	}
	body = w.read(res, body)
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	if after, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || after > int(pollAtMost/time.Second) {
		res.Header.Del("Retry-After")
	}
	return res, nil
}

// trouble is a problem document (RFC 8555 §6.7, RFC 7807).
type trouble struct {
	Type        string    `json:"type"`
	Detail      string    `json:"detail"`
	Subproblems []trouble `json:"subproblems"`
}

func (t trouble) String() string {
	text := strings.TrimPrefix(t.Type, "urn:ietf:params:acme:error:")
	if t.Detail != "" {
		text += ": " + t.Detail
	}
	for _, sub := range t.Subproblems {
		text += "; " + sub.String()
	}
	return text
}

// acmeObject is what we look at of orders and authorizations.
type acmeObject struct {
	Error      *trouble               `json:"error"`
	Identifier struct{ Value string } `json:"identifier"`
	Challenges []json.RawMessage      `json:"challenges"`
}

type acmeChallenge struct {
	Type  string   `json:"type"`
	Error *trouble `json:"error"`
}

// read notes the problems that an answer tells of, and returns the body to hand on.
func (w *acmeWire) read(res *http.Response, body []byte) []byte {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode >= 400 {
		var t trouble
		if json.Unmarshal(body, &t) != nil || t.Type == "" {
			t = trouble{Type: res.Status}
		}
		// The authority wants a fresh nonce, and gets it (RFC 8555 §6.5).
		if !strings.HasSuffix(t.Type, ":badNonce") {
			w.note("", fmt.Sprintf("%s says %s", res.Request.URL.Host, t))
		}
		return body
	}
	var o acmeObject
	if kind != "application/json" || json.Unmarshal(body, &o) != nil {
		return body
	}
	if o.Error != nil {
		w.note(o.Identifier.Value, o.Error.String())
	}
	if len(o.Challenges) == 0 {
		return body
	}
	return w.withDoors(o, body)
}

// withDoors takes out the challenges of an authorization that we have no door for.
func (w *acmeWire) withDoors(o acmeObject, body []byte) []byte {
	var kept []json.RawMessage
	for _, raw := range o.Challenges {
		var c acmeChallenge
		if json.Unmarshal(raw, &c) != nil {
			continue
		}
		if c.Error != nil {
			w.note(o.Identifier.Value, c.Type+" failed: "+c.Error.String())
		}
		if !w.skip[c.Type] {
			kept = append(kept, raw)
		}
	}
	var whole map[string]json.RawMessage
	if json.Unmarshal(body, &whole) != nil {
		return body
	}
	list, err := json.Marshal(kept)
	if err != nil {
		return body
	}
	whole["challenges"] = list
	if out, err := json.Marshal(whole); err == nil {
		return out
	}
	return body
}

// note remembers the problems of a name until it is forgotten.
func (w *acmeWire) note(name, text string) {
	w.log.Debug("the certificate authority has a problem", "name", name, "err", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.problems[name]
	if strings.Contains(old, text) || len(old)+len(text) > maxProblem {
		return
	}
	if old != "" {
		text = old + "; " + text
	}
	w.problems[name] = text
}

// problem takes what is known about a name's troubles. What is about no name may be about it.
func (w *acmeWire) problem(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	own, general := w.problems[name], w.problems[""]
	delete(w.problems, name)
	delete(w.problems, "")
	if own != "" && general != "" {
		return own + "; " + general
	}
	return cmp.Or(own, general)
}
