package admin_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayd/relay/admin"
)

// scrape reads the metrics as Prometheus would.
func scrape(t *testing.T, m *admin.Metrics) string {
	t.Helper()
	dir := t.TempDir()
	serve(t, admin.Config{DataDir: dir, Queue: &memory{}, Metrics: m})
	code, body := raw(t, dir, "GET", "/metrics", "")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	return body
}

func wantLines(t *testing.T, body string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+body, "\n"+l+"\n") {
			t.Errorf("no line %q", l)
		}
	}
}

// The log is where a letter's life is told; the counters listen there, at every level.
func TestMetricsFromTheLog(t *testing.T) {
	t.Parallel()
	m := admin.NewMetrics()
	var out bytes.Buffer
	log := slog.New(m.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	log.With("room", "intake").Info("accepted", "id", "x")
	log.WithGroup("g").Info("accepted")
	log.Warn("failed")
	log.Info("something else")
	log.Debug("delivered")
	wantLines(t, scrape(t, m), `relayd_messages_total{event="accepted"} 2`,
		`relayd_messages_total{event="failed"} 1`, `relayd_messages_total{event="delivered"} 0`)
	if got := out.String(); strings.Contains(got, "accepted") || !strings.Contains(got, "failed") {
		t.Errorf("logged %q", got)
	}
}

func TestMetricsOfAListener(t *testing.T) {
	t.Parallel()
	m := admin.NewMetrics()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := m.Listener("smtp", inner)
	defer ln.Close()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(client, "QUIT\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "221 bye\r\n")
	if s := m.Stats().Services[0]; s.Connections != 1 || s.Now != 1 || s.BytesIn != 6 || s.BytesOut != 9 {
		t.Errorf("%+v", s)
	}
	conn.Close()
	conn.Close()
	client.Close()
	wantLines(t, scrape(t, m), `relayd_connections{service="smtp"} 0`,
		`relayd_connections_total{service="smtp"} 1`,
		`relayd_bytes_total{direction="in",service="smtp"} 6`,
		`relayd_bytes_total{direction="out",service="smtp"} 9`)
}

func TestMetricsGauges(t *testing.T) {
	t.Parallel()
	m := admin.NewMetrics()
	m.Queue(func() (int, int) { return 7, 2 })
	m.Certificates(func() []admin.Certificate {
		return []admin.Certificate{
			{Name: "mail.office.example", From: "/etc/cert.pem", Expires: time.Now().Add(time.Hour + 500*time.Millisecond)},
			{Name: "old.office.example", From: "/etc/old.pem", Expires: time.Now().Add(-time.Hour), Problem: "garbage"},
			{Name: "pop.office.example", From: "acme", Problem: "unauthorized"}}
	})
	m.Message("reported")
	m.Message("no such word")
	text := scrape(t, m)
	for _, pattern := range []string{`(?m)^relayd_certificate_expiry_seconds{from="/etc/cert.pem",name="mail.office.example"} 3(600.\d*|5\d\d.\d*)$`,
		`(?m)^relayd_certificate_expiry_seconds{from="/etc/old.pem",name="old.office.example"} -36\d\d.\d*$`} {
		if !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("no line %s in\n%s", pattern, text)
		}
	}
	wantLines(t, text, "relayd_queue_items 7", "relayd_queue_held_items 2",
		`relayd_certificate_expiry_seconds{from="acme",name="pop.office.example"} 0`,
		`relayd_certificate_problem{from="/etc/cert.pem",name="mail.office.example"} 0`,
		`relayd_certificate_problem{from="/etc/old.pem",name="old.office.example"} 1`,
		`relayd_certificate_problem{from="acme",name="pop.office.example"} 1`, `relayd_messages_total{event="reported"} 1`)
}

// Counting costs little: it stands in the way of every octet.
func BenchmarkMetricsBytes(b *testing.B) {
	m := admin.NewMetrics()
	for b.Loop() {
		m.Bytes("smtp", 1, 1)
	}
}

// What is left of the disk is there; that of no disk is unknown, not full.
func TestMetricsDisk(t *testing.T) {
	t.Parallel()
	free := regexp.MustCompile(`(?m)^relayd_disk_free_(bytes|inodes) (\S+)$`)
	for dir, unknown := range map[string]bool{t.TempDir(): false, "/no/such/dir": true} {
		m := admin.NewMetrics()
		m.Disk(dir)
		found := free.FindAllStringSubmatch(scrape(t, m), -1)
		if len(found) != 2 || found[0][2] == "0" || (found[0][2] == "NaN") != unknown {
			t.Errorf("%s: %q", dir, found)
		}
	}
}
