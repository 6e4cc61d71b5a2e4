package smtpd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayd/relay/smtpd"
)

// lane is a lenient service that remembers its clients.
func lane(o *office) smtpd.Config {
	c := config(o)
	c.Service = "device"
	c.Profile = smtpd.Profile{Lenient: true, PlaintextAuth: true, Devices: smtpd.NewDevices()}
	return c
}

// What a handshake fails of is said so that somebody at the device understands it.
func TestDeviceTLSTroubles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		client *tls.Config
		say    string // in place of a TLS hello
		want   string
	}{
		{"1.0", &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, "", "asked for TLS 1.0, which is not safe any more: TLS 1.2 is the least"},
		{"certificate", &tls.Config{ServerName: "mail.office.example"}, "", "does not accept our certificate: "},
		{"no TLS", nil, "EHLO scanner\r\n", "did not start TLS where TLS comes first"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := lane(&office{})
			c.ImplicitTLS = true
			s, addr := listen(t, c)
			conn := dial(t, addr)
			if test.client == nil {
				conn.send(test.say)
			} else if err := tls.Client(conn.conn, test.client).HandshakeContext(t.Context()); err == nil && test.name == "1.0" {
				t.Fatal("a handshake with " + test.name)
			}
			conn.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			conn.conn.Read(make([]byte, 1))
			conn.conn.Close()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := troubles(c.Profile.Devices); !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What is remembered of a device: its last letter and its last trouble, beside each other.
func TestDevicesRemember(t *testing.T) {
	t.Parallel()
	c := lane(&office{})
	_, addr := listen(t, c)
	conn := dial(t, addr)
	conn.send("EHLO scanner-2\nMAIL FROM:<x@y.example>\nRCPT TO:<nobody@office.example>\nRCPT TO:<ann@office.example>\nRCPT TO:<bob@office.example>\nDATA\nSubject: scan\n\nx\n.\nQUIT\n")
	conn.want("220*", "250-*", "250*", "550*", "250*", "250*", "354*", "250*", "221*")
	list := c.Profile.Devices.List()
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	d := list[0]
	got := fmt.Sprintln(d.Client, d.Service, d.Helo, d.Letters, d.ID, d.From, d.To, d.Rcpts, d.Trouble)
	if want := fmt.Sprintln("127.0.0.1", "device", "scanner-2", 1, "0123456789abcdef", "x@y.example", "ann@office.example", 2,
		"recipient unknown: nobody@office.example"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if d.Seen.IsZero() || d.At.Before(d.TroubleAt) || d.TroubleAt.Before(d.Seen) {
		t.Errorf("times: %+v", d)
	}
}

// However many addresses come by, what is remembered is bounded, and strangers push nobody out.
func TestDevicesAreBounded(t *testing.T) {
	t.Parallel()
	d := smtpd.NewDevices()
	for i := range 3000 {
		d.Saw(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "device")
		d.Stranger(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), "device")
	}
	known, strangers := 0, 0
	for _, dev := range d.List() {
		if dev.Trouble == "" {
			known++
		} else {
			strangers++
		}
	}
	if known != 1000 || strangers != 50 {
		t.Errorf("%d known, %d strangers", known, strangers)
	}
}

var (
	laneEnds = regexp.MustCompile(`\n\.\r?\n`)
	laneData = regexp.MustCompile(`DATA[ \t]*\n`)
)

// FuzzLane: the property of FuzzGuard by the lane's own definition. Where no DATA is ended by a
// bare LF, the definition is that of everybody else.
func FuzzLane(f *testing.F) {
	head := "EHLO c\nMAIL FROM:<x@y.example>\nRCPT TO:<ann@office.example>\n"
	for _, end := range falseEnds {
		f.Add([]byte(head+"DATA\none"+end+smuggled), uint8(3))
		f.Add([]byte(head+"DATA\r\none"+end+smuggled), uint8(5))
	}
	f.Add([]byte("EHLO\n"+head[7:]+"BDAT 5\na\n\r\n.BDAT 3 LAST\n\r\n.\n"), uint8(1))
	f.Add([]byte(head+"BDAT 3\nab\rBDAT 1\n\nRSET\nQUIT\n"), uint8(7))
	f.Add([]byte("HELO\nAUTH LOGIN =\nYW5u\nc2VjcmV0\nAUTH=LOGIN ann\n*\nAUTH NTLM\n"), uint8(2))
	o := &office{}
	c := lane(o)
	c.Limits = smtpd.Limits{MessageSize: 2000, CommandLine: 200, Recipients: 3}
	ln := servePipes(f, c)
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		o.mu.Lock()
		o.letters = nil
		o.mu.Unlock()
		conn := &script{in: in, piece: int(piece%64) + 1, over: make(chan struct{})}
		ln.conns <- conn
		select {
		case <-conn.over:
		case <-time.After(10 * time.Second):
			t.Fatal("the session does not end")
		}
		checkLane(t, o.all(), bytes.ToUpper(in))
	})
}

func checkLane(t *testing.T, letters []letter, in []byte) {
	t.Helper()
	// "DATA" takes the LF in front of a lone dot along.
	ends := len(laneEnds.FindAllIndex(bytes.ReplaceAll(in, []byte("\n"), []byte("\n\n")), -1))
	lf := laneData.Match(in)
	if !lf {
		ends = bytes.Count(bytes.ReplaceAll(in, []byte("\r\n"), []byte("\r\n\r\n")), []byte("\r\n.\r\n"))
	}
	if ends += bytes.Count(in, []byte("LAST")); len(letters) > ends {
		t.Fatalf("%d letters, but only %d ends", len(letters), ends)
	}
	for _, l := range letters {
		if bad := badNewline(l.body); bad != "" {
			t.Fatalf("%s in %q", bad, l.body)
		}
		if bytes.Contains(in, []byte("BDAT")) {
			continue
		}
		if lines := strings.Split(l.body, "\r\n"); lines[len(lines)-1] != "" {
			t.Fatalf("%q ends in the middle of a line", l.body)
		}
	}
}
