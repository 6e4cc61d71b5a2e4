package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/admin"
)

func listKeys(t *testing.T, c *admin.Client, f admin.Filter) (keys []string) {
	t.Helper()
	for it, err := range c.List(context.Background(), f) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, it.Key())
	}
	return keys
}

func TestList(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, admin.Config{Queue: twoLetters(t)})
	yes := true
	a1, a2, b := string(idA)+"/one.example", string(idA)+"/two.example", string(idB)+"/three.example"
	for _, tc := range []struct {
		name string
		f    admin.Filter
		want []string
	}{
		{"everything", admin.Filter{}, []string{a1, a2, b}},
		{"one letter", admin.Filter{IDs: []string{string(idA)}}, []string{a1, a2}},
		{"one domain of it", admin.Filter{IDs: []string{a2}}, []string{a2}},
		{"the beginning of an id", admin.Filter{IDs: []string{"0ab"}}, []string{b}},
		{"in capitals", admin.Filter{IDs: []string{"0AB/Three.Example."}}, []string{b}},
		{"keys", admin.Filter{Keys: []string{a1, string(idB) + "/gone.example"}}, []string{a1}},
		{"domain", admin.Filter{Domain: "two.example"}, []string{a2}},
		{"from", admin.Filter{From: "ann"}, []string{a1, a2}},
		{"held", admin.Filter{Held: &yes}, []string{b}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, listKeys(t, c, tc.f)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// One item that cannot be read neither hides the others nor goes unsaid.
func TestListGoesOnAfterABrokenItem(t *testing.T) {
	t.Parallel()
	q := twoLetters(t)
	q.bad = errors.New("queue: record of 17 is torn")
	c, _ := serve(t, admin.Config{Queue: q})
	var n int
	var broken []string
	for _, err := range c.List(context.Background(), admin.Filter{}) {
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		n++
	}
	if n != 3 || len(broken) != 1 || broken[0] != q.bad.Error() {
		t.Errorf("%d items and the errors %q", n, broken)
	}
	for _, err := range admin.NewReader(q).List(context.Background(), admin.Filter{}) {
		if e, ok := errors.AsType[*admin.Error](err); err != nil && (!ok || e.Code != 0) {
			t.Errorf("without the socket: %v", err)
		}
	}
	st, err := c.Status(context.Background())
	if err != nil || len(st.Errors) != 1 || st.Queue.Items != 3 {
		t.Errorf("status %+v, %v", st, err)
	}
}

// Lines are the items as JSON, one a line; Summaries the same without the two long fields.
func TestFormsOfAList(t *testing.T) {
	t.Parallel()
	q := twoLetters(t)
	q.bad = errors.New("torn")
	c, _ := serve(t, admin.Config{Queue: q})
	var whole, broken []string
	for it, err := range c.List(t.Context(), admin.Filter{}) {
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		text, err := json.Marshal(it)
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, string(text))
	}
	for text, err := range c.Lines(t.Context(), admin.Filter{}) {
		switch {
		case err != nil && len(broken) == 1 && err.Error() == broken[0]:
			broken = nil
		case err != nil || len(whole) == 0 || string(text) != whole[0]+"\n":
			t.Errorf("line %q, %v; want %q", text, err, whole)
		default:
			whole = whole[1:]
		}
	}
	if len(whole)+len(broken) != 0 {
		t.Errorf("not seen: %q %q", whole, broken)
	}
	for it, err := range c.Summaries(t.Context(), admin.Filter{IDs: []string{string(idA)}}) {
		want, getErr := c.Get(t.Context(), it.Key())
		if err != nil && err.Error() == q.bad.Error() {
			continue
		}
		if err != nil || getErr != nil || it.Recipients != nil {
			t.Fatal(it, err, getErr)
		}
		want[0].Recipients, want[0].Origin = nil, relay.Origin{}
		if diff := cmp.Diff(want[0], it, cmp.Comparer(func(a, b relay.Origin) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, admin.Config{Queue: twoLetters(t)})
	for _, tc := range []struct {
		name string
		code int
	}{
		{"0a", http.StatusConflict},
		{"0cc", http.StatusNotFound},
		{"0aaaaaaaaaaaaaab", http.StatusNotFound},
		{string(idA) + "/three.example", http.StatusNotFound},
		{"u", http.StatusBadRequest},
		{"0aaaaaaaaaaaaaaaa", http.StatusBadRequest},
		{"../../status", http.StatusBadRequest},
		{string(idA) + "/-", http.StatusBadRequest},
	} {
		_, err := c.Get(context.Background(), tc.name)
		if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != tc.code {
			t.Errorf("get %q: %v, want %d", tc.name, err, tc.code)
		}
		if _, err := c.Change(context.Background(), "drop", admin.Order{Filter: admin.Filter{IDs: []string{tc.name}}}); err == nil {
			t.Errorf("drop %q: no error", tc.name)
		}
	}
	items, err := c.Get(context.Background(), "0aa/two.example")
	if err != nil || len(items) != 1 || items[0].Domain != "two.example" {
		t.Errorf("%v, %v", items, err)
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	q := twoLetters(t)
	q.body = strings.Repeat("x", 200_000) + "\r\n"
	c, _ := serve(t, admin.Config{Queue: q})
	for _, name := range []string{string(idA), "0ab", string(idA) + "/one.example"} {
		r, err := c.Body(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != q.body {
			t.Errorf("%s: %d octets, %v", name, len(got), err)
		}
	}
	if _, err := c.Body(context.Background(), "0cc"); err == nil {
		t.Error("a body for a letter that is not there")
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	q := twoLetters(t)
	c, _ := serve(t, admin.Config{Queue: q, Bouncer: q})
	ctx := context.Background()
	for _, verb := range []string{"retry", "hold", "release", "drop", "bounce"} {
		n, err := c.Change(ctx, verb, admin.Order{Filter: admin.Filter{Domain: "two.example"}})
		if n != 1 || err != nil {
			t.Errorf("%s: %d, %v", verb, n, err)
		}
	}
	want := []string{"retry", "hold", "release", "drop", "bounce "}
	if diff := cmp.Diff(want, q.calls); diff != "" {
		t.Error(diff)
	}
	n, err := c.Change(ctx, "bounce", admin.Order{All: true, Reason: "the office moved"})
	if n != 3 || err != nil || q.calls[5] != "bounce the office moved" {
		t.Errorf("%d, %v, %q", n, err, q.calls)
	}
	_, err = c.Change(ctx, "hold", admin.Order{Filter: admin.Filter{To: "x", Older: admin.Duration(time.Hour)}})
	if diff := cmp.Diff(queue.Filter{To: "x", OlderThan: time.Hour}, q.last); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// No slip empties the queue.
func TestChangeRefusals(t *testing.T) {
	t.Parallel()
	q := twoLetters(t)
	c, _ := serve(t, admin.Config{Queue: q})
	ctx := context.Background()
	for _, tc := range []struct {
		name, verb string
		order      admin.Order
		code       int
	}{
		{"everything by accident", "drop", admin.Order{}, http.StatusBadRequest},
		{"no such verb", "eat", admin.Order{All: true}, http.StatusNotFound},
		{"nobody to bounce", "bounce", admin.Order{All: true}, http.StatusNotImplemented},
		{"header injection", "drop", admin.Order{All: true, Reason: "x\r\nBcc: y"}, http.StatusBadRequest},
		{"endless reason", "drop", admin.Order{All: true, Reason: strings.Repeat("x", 501)}, http.StatusBadRequest},
		{"bad domain", "drop", admin.Order{Filter: admin.Filter{Domain: "a..b"}}, http.StatusBadRequest},
		{"bad key", "drop", admin.Order{Filter: admin.Filter{Keys: []string{"0a/one.example"}}}, http.StatusBadRequest},
		{"too many", "drop", admin.Order{Filter: admin.Filter{Keys: make([]string, 20_000)}}, http.StatusBadRequest},
		{"too large", "drop", admin.Order{Filter: admin.Filter{To: strings.Repeat("x", 2<<20)}}, http.StatusRequestEntityTooLarge},
		{"one of two is gone", "drop", admin.Order{Filter: admin.Filter{IDs: []string{string(idA), "0cc"}}}, http.StatusNotFound},
	} {
		_, err := c.Change(ctx, tc.verb, tc.order)
		if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != tc.code {
			t.Errorf("%s: %v, want %d", tc.name, err, tc.code)
		}
	}
	if len(q.calls) > 0 {
		t.Errorf("the queue was told to %q", q.calls)
	}
}

// raw speaks HTTP to the socket without the client.
func raw(t *testing.T, dir, method, path, body string) (int, string) {
	t.Helper()
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, admin.SocketName))
		}}}
	req, err := http.NewRequest(method, "http://relayd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got)
}

// A filter or a field that is not understood must not be passed over: it would choose more.
func TestStrictRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := twoLetters(t)
	serve(t, admin.Config{DataDir: dir, Queue: q})
	for _, tc := range []struct{ method, path, body string }{
		{"GET", "/v1/queue?domian=x", ""},
		{"GET", "/v1/queue?held=perhaps", ""},
		{"GET", "/v1/queue?older=-1h", ""},
		{"GET", "/v1/queue?to=a&to=b", ""},
		{"POST", "/v1/queue/drop", `{"domian":"x","all":true}`},
		{"POST", "/v1/queue/drop", `{"older":"-5m"}`},
		{"POST", "/v1/queue/drop", `nonsense`},
		{"POST", "/v1/queue/drop", ``},
	} {
		if code, body := raw(t, dir, tc.method, tc.path, tc.body); code != http.StatusBadRequest {
			t.Errorf("%s %s %s: %d %s", tc.method, tc.path, tc.body, code, body)
		}
	}
	if code, body := raw(t, dir, "GET", "/v2/everything", ""); code != http.StatusNotFound || !json.Valid([]byte(body)) {
		t.Errorf("%d %s", code, body)
	}
	if len(q.calls) > 0 {
		t.Errorf("the queue was told to %q", q.calls)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	m := admin.NewMetrics()
	m.Connected("smtp")
	dir := t.TempDir()
	c, _ := serve(t, admin.Config{DataDir: dir, Queue: twoLetters(t), Metrics: m,
		About: func() admin.About { return admin.About{Version: "1.2", Hostname: "mail.office.example"} }})
	st, err := c.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	q := st.Queue
	if q.Items != 3 || q.Messages != 2 || q.Recipients != 4 || q.Size != 2468 || q.Held != 1 ||
		!q.Oldest.Equal(born) || !q.NextDue.Equal(born.Add(time.Hour)) {
		t.Errorf("queue %+v", q)
	}
	if st.Version != "1.2" || st.DataDir != dir || st.Disk.Total < st.Disk.Free || st.Disk.Free <= 0 || st.PID == 0 {
		t.Errorf("status %+v", st)
	}
	if len(st.Open) != 1 || st.Open[0].Now != 1 {
		t.Errorf("connections %+v", st.Open)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	wrong := errors.New("relayd.toml:3:1: there is no setting of this name")
	calls := 0
	c, _ := serve(t, admin.Config{Queue: &memory{}, Reload: func(context.Context) error {
		if calls++; calls == 1 {
			return wrong
		}
		return nil
	}})
	err := c.Reload(context.Background())
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.Message != wrong.Error() || e.Code != http.StatusUnprocessableEntity {
		t.Errorf("got %v", err)
	}
	if err := c.Reload(context.Background()); err != nil {
		t.Error(err)
	}
}

// Profiles and the queue are for the socket; the network sees three paths.
func TestPublicListener(t *testing.T) {
	t.Parallel()
	ready := errors.New("the disk is full")
	dir := t.TempDir()
	_, s := serve(t, admin.Config{DataDir: dir, Queue: twoLetters(t), Ready: func(context.Context) error { return ready }})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeMetrics(context.Background(), ln)
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/v1/queue", "/v1/status", "/debug/pprof/", "/"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `relayd_messages_total{event="accepted"} 0`) {
		t.Errorf("metrics: %d %s", code, body)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, body := get("/readyz"); code != 503 || strings.Contains(body, "disk") {
		t.Errorf("readyz: %d %s", code, body)
	}
	ready = nil
	if code, _ := get("/readyz"); code != 200 {
		t.Errorf("readyz: %d", code)
	}
	if code, _ := raw(t, dir, "GET", "/debug/pprof/cmdline", ""); code != 200 {
		t.Errorf("pprof on the socket: %d", code)
	}
}

// The names of the JSON are a promise to scripts.
func TestItemJSON(t *testing.T) {
	t.Parallel()
	it := item(t, idA, "ann@office.example", "bob@one.example", "carol@one.example")
	it.Attempts, it.Warned = 2, true
	it.Rcpts[0].Orig = "sales@office.example"
	it.Last = []relay.Result{{Rcpt: addr(t, "bob@one.example"), Outcome: relay.Deferred,
		Reply: relay.Reply{Code: 450, Status: relay.Status{4, 2, 1}, Text: "come\nback"}, Host: "mx.one.example[192.0.2.7]:25", At: born}}
	it.Done = []relay.Result{{Rcpt: addr(t, "dan@one.example"), Outcome: relay.Delivered, Reply: relay.Reply{Code: 250, Text: "ok"}, At: born}}
	got, err := json.MarshalIndent(admin.NewItem(it), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "id": "0aaaaaaaaaaaaaaa",
 "domain": "one.example",
 "from": "ann@office.example",
 "to": [
  "bob@one.example",
  "carol@one.example"
 ],
 "size": 1234,
 "accepted": "2026-11-21T08:00:00Z",
 "attempts": 2,
 "next": "2026-11-21T09:00:00Z",
 "held": false,
 "warned": true,
 "last_answer": "450 4.2.1 come back",
 "recipients": [
  {
   "address": "bob@one.example",
   "orig": "sales@office.example",
   "state": "deferred",
   "code": 450,
   "status": "4.2.1",
   "text": "come\nback",
   "host": "mx.one.example[192.0.2.7]:25",
   "at": "2026-11-21T08:00:00Z"
  },
  {
   "address": "carol@one.example",
   "state": "waiting"
  },
  {
   "address": "dan@one.example",
   "state": "delivered",
   "code": 250,
   "text": "ok",
   "at": "2026-11-21T08:00:00Z"
  }
 ],
 "origin": {}
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// A reader that only wants to look has the same manners without the socket.
func TestReaderWithoutServer(t *testing.T) {
	t.Parallel()
	r := admin.NewReader(twoLetters(t))
	n := 0
	for it, err := range r.List(context.Background(), admin.Filter{IDs: []string{"0ab"}}) {
		if err != nil || it.ID != idB {
			t.Errorf("%v, %v", it, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d items", n)
	}
	for _, err := range r.List(context.Background(), admin.Filter{IDs: []string{"0c"}}) {
		if e, ok := errors.AsType[*admin.Error](err); !ok || !e.IsNotFound() {
			t.Errorf("got %v", err)
		}
	}
}

// Whatever query comes in, the filter read from it is written back the same.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "id=0a&id=0b", "held=true&older=2h", "to=a%40b&from=%3C%3E&domain=x", "key=0a/b&held=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got, err := admin.ParseFilter(v)
		if err != nil {
			return
		}
		again, err := admin.ParseFilter(got.Query())
		if err != nil || !reflect.DeepEqual(normal(got), normal(again)) {
			t.Errorf("%q: %+v became %+v, %v", query, got, again, err)
		}
		data, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var viaJSON admin.Filter
		if err := json.Unmarshal(data, &viaJSON); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	})
}

// normal treats an empty list as none.
func normal(f admin.Filter) admin.Filter {
	if len(f.IDs) == 0 {
		f.IDs = nil
	}
	if len(f.Keys) == 0 {
		f.Keys = nil
	}
	return f
}

// What is wrong with the queue comes over the socket in words.
func TestCheckAndRepair(t *testing.T) {
	t.Parallel()
	q := twoLetters(t)
	q.faults = []queue.Fault{{Kind: queue.FaultBody, ID: "0abcdefghjkmnpqr", Text: "the text is damaged", Note: true}}
	c, _ := serve(t, admin.Config{Queue: q})
	r, err := c.Check(t.Context())
	if err != nil || r.Items != 3 || len(r.Faults) != 1 || r.Faults[0] != q.faults[0] {
		t.Errorf("checked: %+v, %v", r, err)
	}
	done, err := c.Repair(t.Context())
	if err != nil || len(done.Mended) != 1 || done.Mended[0] != q.faults[0] {
		t.Errorf("repaired: %+v, %v", done, err)
	}
}
