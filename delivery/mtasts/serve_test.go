package mtasts

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relayd/relay"
)

// TestHandler: the policy is served over TLS, to whoever asks for its host, and is what our own
// sending side reads of it.
func TestHandler(t *testing.T) {
	t.Parallel()
	own := Own(relay.STSEnforce, "mail.office.example", "backup.example")
	h := Handler(func(d relay.Domain) (relay.STSPolicy, bool) { return own, d == "office.example" },
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, c := range []struct {
		method, url string
		clear       bool
		want        int
	}{
		{method: "GET", url: "https://mta-sts.office.example/.well-known/mta-sts.txt", want: 200},
		{method: "HEAD", url: "https://mta-sts.office.example/.well-known/mta-sts.txt", want: 200},
		{method: "GET", url: "https://MTA-STS.Office.Example:443/.well-known/mta-sts.txt", want: 200},
		{method: "POST", url: "https://mta-sts.office.example/.well-known/mta-sts.txt", want: 405},
		{method: "GET", url: "http://mta-sts.office.example/.well-known/mta-sts.txt", clear: true, want: 404},
		{method: "GET", url: "https://office.example/.well-known/mta-sts.txt", want: 404},
		{method: "GET", url: "https://mta-sts.other.example/.well-known/mta-sts.txt", want: 404},
		{method: "GET", url: "https://mta-sts.office.example/mail/config-v1.1.xml", want: 418},
	} {
		r := httptest.NewRequest(c.method, c.url, nil)
		if !c.clear {
			r.TLS = &tls.ConnectionState{}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.url, w.Code, c.want)
		}
		if c.want != 200 || c.method == "HEAD" {
			continue
		}
		text, _ := io.ReadAll(w.Body)
		if want := "version: STSv1\r\nmode: enforce\r\nmx: mail.office.example\r\nmx: backup.example\r\nmax_age: 604800\r\n"; string(text) != want {
			t.Errorf("%q", text)
		}
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("served as %s", w.Header().Get("Content-Type"))
		}
		if p, err := parse(string(text)); err != nil || p.Mode != relay.STSEnforce || !p.Allows("backup.example") {
			t.Errorf("read as %+v, %v", p, err)
		}
	}
}

// TestRecordID: the id is one that RFC 8461 §3.1 allows, and changes with the policy alone.
func TestRecordID(t *testing.T) {
	t.Parallel()
	a, b := RecordID(Own(relay.STSTesting, "mail.office.example")), RecordID(Own(relay.STSEnforce, "mail.office.example"))
	if a == b || a != RecordID(Own(relay.STSTesting, "mail.office.example")) {
		t.Errorf("%s and %s", a, b)
	}
	if id, ok := parseRecord([]string{"v=STSv1; id=" + a}); !ok || id != a {
		t.Errorf("read as %q, %v", id, ok)
	}
}
