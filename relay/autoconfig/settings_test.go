package autoconfig_test

import (
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/autoconfig"
)

var ann = relay.Address{Local: "ann", Domain: "office.example"}

func settings(listeners ...string) autoconfig.Settings {
	var list []autoconfig.Listener
	for _, l := range listeners {
		service, address, _ := strings.Cut(l, " ")
		list = append(list, autoconfig.Listener{Service: service, Address: address})
	}
	return autoconfig.New("mail.office.example", []relay.Domain{"office.example", "branch.example"}, list)
}

var office = []string{"smtp :25", "submission :587", "submissions 0.0.0.0:465", "pop3 :110", "pop3s [::]:995", "metrics 127.0.0.1:9025"}

const officeSRV = `_pop3s._tcp.office.example.          SRV  0 1 995 mail.office.example.
_pop3._tcp.office.example.           SRV 10 1 110 mail.office.example.
_submissions._tcp.office.example.    SRV  0 1 465 mail.office.example.
_submission._tcp.office.example.     SRV 10 1 587 mail.office.example.
`

// Only what listens is offered; what listens for this machine only is offered to nobody else.
func TestSRV(t *testing.T) {
	t.Parallel()
	s := settings(office...)
	s.Domains = s.Domains[:1]
	if got := s.SRV(); got != officeSRV {
		t.Errorf("got\n%s\nwant\n%s", got, officeSRV)
	}
	s = settings("pop3 127.0.0.1:110", "pop3 :1110", "pop3s [::1]:995", "submission :0")
	s.Domains = s.Domains[:1]
	const want = `_pop3s._tcp.office.example.          SRV  0 0 0 .
_pop3._tcp.office.example.           SRV 10 1 1110 mail.office.example.
_submissions._tcp.office.example.    SRV  0 0 0 .
_submission._tcp.office.example.     SRV  0 0 0 .
`
	if got := s.SRV(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		local, listener, want string
	}{
		{"ann", "pop3 :110", "pop://ann%40office.example@mail.office.example"},
		{"ann", "pop3 :1110", "pop://ann%40office.example@mail.office.example:1110"},
		{"ann", "pop3 [::1]:110", "pop://ann%40office.example@[::1]"},
		{"ann", "pop3s :995", "pops://ann%40office.example@mail.office.example"},
		{"a+b;c d", "pop3 :110", "pop://%22a%2Bb%3Bc%20d%22%40office.example@mail.office.example"},
		{"ann", "smtp :25", ""},
	} {
		user := relay.Address{Local: tc.local, Domain: "office.example"}
		if got := settings(tc.listener).URL(user); got != tc.want {
			t.Errorf("%s on %s: %s, want %s", tc.local, tc.listener, got, tc.want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		listeners []string
		want      []string
	}{
		{office, []string{"user name: ann@office.example,", "incoming: POP3, server mail.office.example, port 995, SSL/TLS, normal password",
			"outgoing: SMTP, server mail.office.example, port 465, SSL/TLS", "incoming: POP, server mail.office.example, port 995, requires"}},
		{[]string{"pop3 127.0.0.1:1100"}, []string{"incoming: POP3, server 127.0.0.1 (on this machine only), port 1100, STARTTLS",
			"outgoing: none: relayd does not listen", "incoming: none: Outlook wants"}},
	} {
		got := settings(tc.listeners...).Text(ann)
		for _, want := range tc.want {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
}

// Thunderbird gets the domain it asks for, and nothing about others.
func TestHandler(t *testing.T) {
	t.Parallel()
	type server struct {
		Type       string `xml:"type,attr"`
		Hostname   string `xml:"hostname"`
		Port       int    `xml:"port"`
		SocketType string `xml:"socketType"`
		Username   string `xml:"username"`
	}
	type file struct {
		Provider struct {
			Domains  []string `xml:"domain"`
			Incoming []server `xml:"incomingServer"`
			Outgoing []server `xml:"outgoingServer"`
		} `xml:"emailProvider"`
	}
	all := settings(office...)
	h := autoconfig.Handler(func() autoconfig.Settings { return all })
	for target, want := range map[string]string{
		"http://autoconfig.office.example/mail/config-v1.1.xml":                                                "office.example",
		"http://autoconfig.office.example/mail/config-v1.1.xml?emailaddress=ann%40branch.example":              "branch.example",
		"http://branch.example:80/.well-known/autoconfig/mail/config-v1.1.xml":                                 "branch.example",
		"http://192.0.2.1/mail/config-v1.1.xml":                                                                "office.example branch.example",
		"http://autoconfig.office.example/mail/config-v1.1.xml?emailaddress=ann%40elsewhere.example":           "404",
		"http://autoconfig.office.example/mail/config-v1.1.xml?emailaddress=%3C%2Fdomain%3E%40..example%00%3C": "404",
		"http://office.example/": "404",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if want == "404" {
			if w.Code != http.StatusNotFound {
				t.Errorf("%s: %d\n%s", target, w.Code, w.Body)
			}
			continue
		}
		var f file
		if err := xml.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/xml") {
			t.Errorf("%s: %d, %v\n%s", target, w.Code, err, w.Body)
			continue
		}
		p := f.Provider
		if got := strings.Join(p.Domains, " "); got != want {
			t.Errorf("%s: domains %s, want %s", target, got, want)
		}
		if len(p.Incoming) != 2 || p.Incoming[0] != (server{"pop3", "mail.office.example", 995, "SSL", "%EMAILADDRESS%"}) ||
			p.Incoming[1] != (server{"pop3", "mail.office.example", 110, "STARTTLS", "%EMAILADDRESS%"}) {
			t.Errorf("%s: incoming %v", target, p.Incoming)
		}
		if len(p.Outgoing) != 2 || p.Outgoing[0] != (server{"smtp", "mail.office.example", 465, "SSL", "%EMAILADDRESS%"}) {
			t.Errorf("%s: outgoing %v", target, p.Outgoing)
		}
	}
	all = settings("smtp :25")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://office.example/mail/config-v1.1.xml", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("without servers: %d", w.Code)
	}
}
