package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Client asks a running relayd over its control socket. Its methods may be called by many
// goroutines. Refusals are *Error.
type Client struct {
	http *http.Client
}

// answerTimeout bounds the wait for the beginning of an answer. Verbs over a whole queue answer at
// their end.
const answerTimeout = 10 * time.Minute

// Dial connects to the relayd of dataDir. ErrNotRunning says that there is none; a socket that
// may not be opened is an os.ErrPermission.
func Dial(dataDir string) (*Client, error) {
	conn, err := dialSocket(context.Background(), dataDir)
	if err != nil {
		return nil, fmt.Errorf("admin: %s: %w", filepath.Join(dataDir, SocketName), notRunning(err))
	}
	conn.Close()
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialSocket(ctx, dataDir)
		},
		ResponseHeaderTimeout: answerTimeout,
	}}}, nil
}

// notRunning tells the errors of connect(2) that mean an absent daemon from all others.
func notRunning(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNotRunning
	}
	return err
}

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// List yields the items f chooses, oldest letter first. An *Error with Code 0 is about one item
// and does not end the list.
func (c *Client) List(ctx context.Context, f Filter) iter.Seq2[Item, error] {
	return c.list(ctx, f, "")
}

// Summaries is List without Recipients and Origin, in half the time.
func (c *Client) Summaries(ctx context.Context, f Filter) iter.Seq2[Item, error] {
	return c.list(ctx, f, preferSummary)
}

func (c *Client) list(ctx context.Context, f Filter, prefer string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for text, err := range c.lines(ctx, f, prefer) {
			var it Item
			if err == nil {
				if err = json.Unmarshal(text, &it); err != nil {
					yield(Item{}, fmt.Errorf("admin: the list broke off: %w", err))
					return
				}
			}
			if !yield(it, err) {
				return
			}
		}
	}
}

// Lines is List with every item as the line of JSON it came in, with its line end, valid until
// the next one.
func (c *Client) Lines(ctx context.Context, f Filter) iter.Seq2[[]byte, error] {
	return c.lines(ctx, f, "")
}

// maxLine bounds one item: letters have recipients without number, in one domain too.
const maxLine = 64 << 20

func (c *Client) lines(ctx context.Context, f Filter, prefer string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		body, err := c.do(ctx, http.MethodGet, "/v1/queue?"+f.Query().Encode(), nil, "Prefer", prefer)
		if err != nil {
			yield(nil, err)
			return
		}
		defer body.Close()
		in := bufio.NewScanner(body)
		in.Buffer(make([]byte, 64<<10), maxLine)
		in.Split(wholeLines)
		for in.Scan() {
			var text []byte
			var err error
			if text = in.Bytes(); bytes.HasPrefix(text, []byte(`{"error":`)) {
				text, err = nil, brokenItem(text)
			}
			if !yield(text, err) {
				return
			}
		}
		if err := in.Err(); err != nil {
			yield(nil, fmt.Errorf("admin: the list broke off: %w", err))
		}
	}
}

// wholeLines is bufio.ScanLines with the line ends, and no line without one.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// brokenItem is what a line says of an item that cannot be read.
func brokenItem(line []byte) error {
	e := &Error{}
	if err := json.Unmarshal(line, e); err != nil {
		return fmt.Errorf("admin: the list broke off: %w", err)
	}
	return e
}

// Get returns the items of one letter; see Reader.Get.
func (c *Client) Get(ctx context.Context, name string) ([]Item, error) {
	path, err := letterPath(name)
	if err != nil {
		return nil, err
	}
	var items []Item
	err = c.get(ctx, path, &items)
	return items, err
}

// Body opens the letter as it will be sent.
func (c *Client) Body(ctx context.Context, name string) (io.ReadCloser, error) {
	path, err := letterPath(name)
	if err != nil {
		return nil, err
	}
	return c.open(ctx, path+"/body")
}

// letterPath is the path of a letter. Only a name that is one gets there: in a URL, dots and
// slashes mean something else.
func letterPath(name string) (string, error) {
	k, _, err := parseName(name)
	if err != nil {
		return "", err
	}
	path := "/v1/queue/" + string(k.ID)
	if k.Domain != "" {
		path += "/" + url.PathEscape(string(k.Domain))
	}
	return path, nil
}

// Change does a verb (retry, hold, release, schedule, route, drop, bounce) and returns how many items it was done
// to.
func (c *Client) Change(ctx context.Context, verb string, o Order) (int, error) {
	var done Done
	err := c.post(ctx, "/v1/queue/"+url.PathEscape(verb), o, &done)
	return done.Count, err
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.get(ctx, "/v1/status", &st)
	return st, err
}

// Stats asks for the counters.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	err := c.get(ctx, "/v1/stats", &st)
	return st, err
}

// Reload makes the daemon read its configuration and users again. An error means that it goes on
// with the old ones.
func (c *Client) Reload(ctx context.Context) error {
	return c.post(ctx, "/v1/reload", struct{}{}, &struct{}{})
}

func (c *Client) get(ctx context.Context, path string, v any) error {
	body, err := c.open(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	return decode(body, v)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	body, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer body.Close()
	return decode(body, out)
}

func decode(r io.Reader, v any) error {
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("admin: the answer cannot be read: %w", err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

// do returns the body of a 200; the caller closes it. header is names and values by turns.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, header ...string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://relayd"+path, body)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	for ; len(header) >= 2; header = header[2:] {
		if header[1] != "" {
			req.Header.Set(header[0], header[1])
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// url.Error repeats a URL that means nothing to the operator.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, fmt.Errorf("admin: %w", notRunning(err))
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	e := &Error{Code: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(e); err != nil || e.Message == "" {
		e.Message = "relayd answered " + resp.Status
	}
	return nil, e
}
