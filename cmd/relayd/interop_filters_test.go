//go:build interop

package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// runProgram starts a real program in a folder of its own, as the user its package makes for it, and
// waits until it is ready. files are what lies in the folder, in which
// DIR stands for its path.
func runProgram(t *testing.T, account string, ready func() bool, files map[string]string, name string, args ...string) (stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "relayd-filter-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	who, err := user.Lookup(account)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	here := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
	for file, text := range files {
		if err := os.WriteFile(dir+"/"+file, []byte(here(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = here(args[i])
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true,
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	said, err := os.Create(dir + "/said")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said.Close()
	over := make(chan struct{})
	go func() { defer close(over); cmd.Wait() }()
	stop = func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its workers too
		<-over
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/said")
			t.Logf("%s said:\n%s", name, text)
		}
		stop()
	})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(6 * patience); time.Now().Before(deadline); <-tick.C {
		if ready() {
			return stop
		}
		select {
		case <-over:
			t.Fatalf("%s has ended", name)
		default:
		}
	}
	t.Fatalf("%s does not answer", name)
	return nil
}

// talksTo says whether a program at address answers to say, if that is anything, and its answer
// has want in it. A port may be open long before anybody serves it.
func talksTo(address, say, want string) func() bool {
	return func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		defer conn.Close()
		if say == "" {
			return true
		}
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, say)
		answer, _ := io.ReadAll(conn)
		return strings.Contains(string(answer), want)
	}
}

const rspamdConf = `
options {
	pidfile = "DIR/pid"; tempdir = "DIR"; control_socket = "DIR/control.sock mode=0600";
	filters = ""; disable_hyperscan = true; hs_cache_dir = "DIR"; url_tld = "DIR/tld";
	dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 0; }
}
logging { type = "console"; level = "notice"; color = false; }
actions { reject = 15; add_header = 6; greylist = 4; }
worker "normal" { bind_socket = "127.0.0.1:%d"; count = 1; }
lua = "DIR/rules.lua";
`

const rspamdRules = `
rspamd_config.OFFER = {
	callback = function(task) return string.find(task:get_subject() or '', 'offer') ~= nil end,
	score = 7, description = 'an offer', group = 'test'
}
rspamd_config:register_symbol{
	name = 'SOME_HEADERS', type = 'idempotent',
	callback = function(task)
		task:set_milter_reply({
			add_headers = {['X-Seen'] = tostring(task:get_from_ip()) .. ' ' .. task:get_helo() .. ' ' .. task:get_from('smtp')[1].addr
				.. ' ' .. task:get_recipients('smtp')[1].addr},
			remove_headers = {['X-Unwanted'] = 0}})
	end
}
`

const clamdConf = `
TCPSocket %d
TCPAddr 127.0.0.1
DatabaseDirectory DIR
TemporaryDirectory DIR
Foreground yes
StreamMaxLength 1M
MaxThreads 2
`

const opendkimConf = `
Mode v
Socket inet:%d@127.0.0.1
UserID opendkim
Background no
AutoRestart no
TestDNSData file:DIR/keys
SoftwareHeader yes
`

// Debian's rspamd, clamd and OpenDKIM, the last over libmilter, all look at each letter.
func TestInteropFilters(t *testing.T) {
	rspamd, clamd, dkim := freePort(), freePort(), freePort()
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	runProgram(t, "_rspamd", talksTo(at(rspamd), "GET /ping HTTP/1.0\r\n\r\n", "pong"), map[string]string{"rspamd.conf": fmt.Sprintf(rspamdConf, rspamd), "rules.lua": rspamdRules, "tld": "test\n"},
		"/usr/bin/rspamd", "-f", "-c", "DIR/rspamd.conf")
	stopClamd := runProgram(t, "clamav", talksTo(at(clamd), "zPING\x00", "PONG"), map[string]string{"clamd.conf": fmt.Sprintf(clamdConf, clamd),
		"test.ndb": "Test.Eicar:0:*:" + hex.EncodeToString([]byte(relaytest.Eicar)) + "\n"},
		"/usr/sbin/clamd", "--config-file=DIR/clamd.conf")
	runProgram(t, "opendkim", talksTo(at(dkim), "", ""), map[string]string{"opendkim.conf": fmt.Sprintf(opendkimConf, dkim), "keys": ""},
		"/usr/sbin/opendkim", "-f", "-x", "DIR/opendkim.conf")
	o := openOffice(t, strings.Replace(officeConfig, "127.0.0.0/8", "127.0.0.99/32", 1)+fmt.Sprintf(`
[filter.rspamd]
address = %q
[filter.clamd]
address = %q
[[filter.milter]]
name = "opendkim"
address = %q
`, at(rspamd), at(clamd), at(dkim)))
	send := func(text string) (string, error) {
		return o.try("", "curl", "-sSv", "--crlf", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "writer@partner.test",
			"--mail-rcpt", "ann@office.test", "--upload-file", o.write("letter", text))
	}
	const head = "X-Unwanted: x\nX-Spam: forged\nFrom: writer@partner.test\nMIME-Version: 1.0\nMessage-ID: <1@partner.test>\nDate: Sat, 21 Nov 2026 09:00:00 +0000\n"
	accepted := func(text, where string, n int) string {
		t.Helper()
		if out, err := send(text); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var all strings.Builder
		for _, file := range o.awaitFiles("data/mail/office.test/ann/"+where+"/*", n) {
			letter, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(letter)
		}
		return all.String()
	}
	refused := func(text, reply string) {
		t.Helper()
		if out, err := send(text); err == nil || !strings.Contains(out, "< "+reply) {
			t.Errorf("%v, want %s\n%s", err, reply, out)
		}
	}

	letter := accepted(head+"Subject: hello\n\nhello\n", "new", 1)
	for _, want := range []string{"\nX-Seen: 127.0.0.1 client.example writer@partner.test ann@office.test\n", "\nX-Spam-Score: 0.00\n", "\nX-Virus-Status: Clean\n",
		"\nDKIM-Filter: OpenDKIM Filter", "\nSubject: hello\n\nhello\n"} {
		if !strings.Contains(letter, want) {
			t.Errorf("no %q in\n%s", want, letter)
		}
	}
	if strings.Contains(letter, "forged") || strings.Contains(letter, "X-Unwanted") {
		t.Errorf("not taken away:\n%s", letter)
	}
	if junk := accepted(head+"Subject: a great offer\n\nbuy\n", ".Junk/new", 1); !strings.Contains(junk, "\nX-Spam: Yes\n") || !strings.Contains(junk, "tests=[OFFER(7.00)]") {
		t.Errorf("\n%s", junk)
	}
	refused(head+"Subject: gtube\n\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n", "550 5.7.1 Gtube pattern")
	mixed := head + "Subject: bill\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nsee the bill\n--b\nContent-Type: application/octet-stream; name=bill.com\nContent-Transfer-Encoding: base64\n\n" +
		base64.StdEncoding.EncodeToString([]byte(relaytest.Eicar)) + "\n--b--\n"
	refused(mixed, "550 5.7.1 the message contains what looks like a virus: Test.Eicar")
	// What is too large for clamd itself hangs up on us and is no failure of its.
	for i := range 3 {
		accepted(head+"Subject: large\n\n"+strings.Repeat("0123456789abcdef0123456789abcdef\n", 50_000), "new", 2+i)
	}
	if status := o.ctl("", "status"); strings.Count(status, ", up\n") != 3 {
		t.Errorf("\n%s", status)
	}
	stopClamd()
	refused(head+"Subject: hello\n\nhello\n", "451 4.7.1 a filter of ours does not answer just now")
	if status := o.ctl("", "status"); !strings.Contains(status, "clamd at "+at(clamd)+", down since") {
		t.Errorf("\n%s", status)
	}
}
