//go:build interop

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// office is a relayd built by `make build`, run as a new user would, with real programs around
// it.
type office struct {
	*server
	t   *testing.T
	dir string
}

const officePassword = "correct horse battery"

func openOffice(t *testing.T, config string) *office {
	t.Helper()
	return openOfficeIn(t, t.TempDir(), config)
}

func openOfficeIn(t *testing.T, dir, config string) *office {
	t.Helper()
	o := &office{t: t, dir: dir}
	o.write("relayd.toml", config)
	o.ctl(officePassword, "user", "add", "ann@office.test", "--password-stdin")
	o.open()
	t.Cleanup(o.close)
	return o
}

func (o *office) open() {
	o.t.Helper()
	d, err := launch(bin(o.t, "relayd"), o.dir, "--config", o.path("relayd.toml"))
	if err != nil {
		o.t.Fatal(err)
	}
	o.server = d
}

// close stops the daemon, if it runs.
func (o *office) close() {
	d := o.server
	if o.server = nil; d == nil {
		return
	}
	if err := d.stop(); err != nil {
		o.t.Errorf("stopping relayd: %v", err)
	}
	if o.t.Failed() {
		o.t.Logf("relayd said:\n%s", d.log.String())
	}
}

func bin(t *testing.T, name string) string {
	path, err := filepath.Abs("../../bin/" + name)
	if err != nil || !exists(path) {
		t.Fatalf("%s is not built: make build", path)
	}
	return path
}

func (o *office) path(name string) string { return filepath.Join(o.dir, name) }

func (o *office) write(name, text string) string {
	o.t.Helper()
	if err := os.WriteFile(o.path(name), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return o.path(name)
}

// run runs a real program and returns what it printed; it must exit 0.
func (o *office) run(stdin, name string, args ...string) string {
	o.t.Helper()
	out, err := o.try(stdin, name, args...)
	if err != nil {
		o.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func (o *office) try(stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(o.t.Context(), name, args...)
	cmd.Dir = o.dir
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (o *office) ctl(stdin string, args ...string) string {
	o.t.Helper()
	return o.run(stdin, bin(o.t, "relayctl"), append([]string{"--config", o.path("relayd.toml")}, args...)...)
}

// awaitFiles waits until n files match, and returns them.
func (o *office) awaitFiles(pattern string, n int) []string {
	o.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); <-tick.C {
		if found, _ := filepath.Glob(o.path(pattern)); len(found) >= n {
			return found
		}
	}
	o.t.Fatalf("no %d files match %s\nqueue:\n%s", n, pattern, o.ctl("", "queue", "ls"))
	return nil
}

const officeConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
submission = "127.0.0.1:0"
pop3 = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[trust]
networks = ["127.0.0.0/8"]
`

// Every sample letter goes in by curl and comes out by curl and mpop, byte for byte.
func TestInteropCurlAndMpopByteExact(t *testing.T) {
	o := openOffice(t, officeConfig)
	letters := relaytest.Letters()
	for i, l := range letters {
		file := o.write(fmt.Sprintf("letter%d", i), string(l.Body))
		o.run("", "curl", "-sS", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "writer@partner.example",
			"--mail-rcpt", "ann@office.test", "--upload-file", file)
		url := fmt.Sprintf("pop3://%s/%d", o.addrs["pop3"], i+1)
		got := o.run("", "curl", "-sS", "--url", url, "--user", "ann@office.test:"+officePassword)
		if want := wireForm(l.Body); body(got) != want {
			t.Errorf("%s: sent %d octets, curl collected %d: %s", l.Name, len(want), len(body(got)), firstDifference(want, body(got)))
		}
	}
	host, port, _ := strings.Cut(o.addrs["pop3"], ":")
	o.write("maildir.marker", "")
	for _, d := range []string{"got/tmp", "got/new", "got/cur"} {
		if err := os.MkdirAll(o.path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	o.run("", "mpop", "--host="+host, "--port="+port, "--user=ann@office.test", "--passwordeval=echo "+officePassword,
		"--auth=user", "--tls=off", "--delivery=maildir,got", "--uidls-file="+o.path("uidls"), "--keep=on", "--received-header=off")
	files := o.awaitFiles("got/new/*", len(letters))
	if len(files) != len(letters) {
		t.Errorf("mpop collected %d letters of %d", len(files), len(letters))
	}
	collected := map[string]int{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		collected[body(string(data))]++
	}
	for _, l := range letters {
		if collected[strings.ReplaceAll(wireForm(l.Body), "\r\n", "\n")] == 0 {
			t.Errorf("%s: mpop did not collect it as it was sent", l.Name)
		}
	}
}

// wireForm is what a letter is once SMTP has carried it: DATA always ends in CRLF.
func wireForm(b []byte) string {
	if s := string(b); s == "" || strings.HasSuffix(s, "\r\n") {
		return s
	}
	return string(b) + "\r\n"
}

// body is a collected letter without our trace fields: Return-Path, Delivered-To, Received.
func body(letter string) string {
	rest := letter
	for _, field := range []string{"Return-Path:", "Delivered-To:", "Received:"} {
		if !strings.HasPrefix(rest, field) {
			return letter
		}
		for first := true; first || strings.HasPrefix(rest, "\t"); first = false {
			_, rest, _ = strings.Cut(rest, "\n")
		}
	}
	return rest
}

func firstDifference(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("octet %d: %.40q and %.40q", i, a[i:], b[i:])
		}
	}
	return fmt.Sprintf("one ends after %d octets", min(len(a), len(b)))
}

// swaks sends in over STARTTLS and AUTH, and hears the refusals it should.
func TestInteropSwaks(t *testing.T) {
	o := openOffice(t, officeConfig)
	swaks := func(args ...string) (string, error) {
		return o.try("", "swaks", append([]string{"--helo", "client.example", "--timeout", "20"}, args...)...)
	}
	out, err := swaks("--server", o.addrs["smtp"], "--from", "x@partner.example", "--to", "ann@office.test", "--tls", "--body", "over TLS")
	if err != nil || !strings.Contains(out, "250 2.0.0 queued as ") {
		t.Errorf("STARTTLS: %v\n%s", err, out)
	}
	out, err = swaks("--server", o.addrs["submission"], "--from", "ann@office.test", "--to", "ann@office.test", "--tls",
		"--auth", "PLAIN", "--auth-user", "ann@office.test", "--auth-password", officePassword)
	if err != nil || !strings.Contains(out, "235 2.7.0") {
		t.Errorf("AUTH PLAIN: %v\n%s", err, out)
	}
	out, err = swaks("--server", o.addrs["submission"], "--from", "ann@office.test", "--to", "ann@office.test", "--tls",
		"--auth", "LOGIN", "--auth-user", "ann@office.test", "--auth-password", "wrong")
	if err == nil || !strings.Contains(out, "535 5.7.8") {
		t.Errorf("a wrong password: %v\n%s", err, out)
	}
	out, err = swaks("--server", o.addrs["smtp"], "--from", "x@partner.example", "--to", "nobody@office.test")
	if err == nil || !strings.Contains(out, "550 5.1.1") {
		t.Errorf("an unknown user: %v\n%s", err, out)
	}
	files := o.awaitFiles("data/mail/office.test/ann/new/*", 2)
	var trace string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		trace += string(data)
	}
	if !strings.Contains(trace, "with ESMTPS\n\t(TLS1.3 ") || !strings.Contains(trace, "with ESMTPSA\n\t(TLS1.3 ") {
		t.Errorf("the Received fields do not tell the truth about TLS:\n%s", trace)
	}
}

// postfix is a Postfix of Debian's with a configuration, a queue and a spool of its own. It takes
// mail for partner.test at addr and sends mail for office.test to the relayd at next.
func (o *office) postfix(addr, next string) (maildir string) {
	o.t.Helper()
	dir := o.t.TempDir()
	// Postfix drops its privileges, and the test's folders are private.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	mail := filepath.Join(dir, "mail")
	etc := filepath.Join(dir, "etc")
	for _, d := range []string{mail, etc, filepath.Join(dir, "queue"), filepath.Join(dir, "data")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			o.t.Fatal(err)
		}
	}
	o.run("", "chown", "postfix", filepath.Join(dir, "data"))
	o.run("", "chown", "nobody", mail)
	uid := strings.TrimSpace(o.run("", "id", "-u", "nobody"))
	files := map[string]string{
		"main.cf": fmt.Sprintf(`
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = mx.partner.test
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
virtual_mailbox_domains = partner.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:bob/
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]s
virtual_gid_maps = static:%[2]s
transport_maps = inline:{office.test=smtp:[127.0.0.1]:%[3]s}
smtp_bind_address = 127.0.0.1
alias_maps =
alias_database =
`, dir, uid, port(next)),
		"master.cf": addr + ` inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			o.t.Fatal(err)
		}
	}
	o.run("", "postfix", "-c", etc, "start")
	o.t.Cleanup(func() {
		// Not with the test's context, which has ended by now.
		exec.Command("postfix", "-c", etc, "stop").Run()
		if o.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "mail.log"))
			o.t.Logf("postfix said:\n%s", log)
		}
	})
	return filepath.Join(mail, "bob/new")
}

func port(addr string) string {
	_, p, _ := strings.Cut(addr, ":")
	return p
}

// Postfix receives what we relay and sends to us, our DNS naming it as the exchanger; what
// arrives is what was sent.
func TestInteropPostfix(t *testing.T) {
	dns := relaytest.ServeDNS(t, "partner.test. MX 10 mx.partner.test.\nmx.partner.test. A 127.0.0.3\n")
	mxPort := freePort()
	o := openOffice(t, officeConfig+fmt.Sprintf("[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n", dns.Addr(), mxPort))
	peer := fmt.Sprintf("127.0.0.3:%d", mxPort)
	inbox := o.postfix(peer, o.addrs["smtp"])

	text := "Subject: to Postfix\r\nMessage-ID: <1@office.test>\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\nFrom: ann@office.test\r\nTo: bob@partner.test\r\n\r\n.dot\r\n.\r\n\xe9\xe8 8-bit\r\n" + strings.Repeat("x", 990) + "\r\n"
	file := o.write("out.eml", text)
	o.run("", "curl", "-sS", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "ann@office.test",
		"--mail-rcpt", "bob@partner.test", "--upload-file", file)
	got := awaitLetter(t, inbox)
	if want := strings.ReplaceAll(text, "\r\n", "\n"); !strings.HasSuffix(got, want) {
		t.Errorf("Postfix got:\n%s\nwant at its end:\n%s", got, want)
	}

	back := strings.Replace(text, "to Postfix", "from Postfix", 1)
	o.run("", "curl", "-sS", "--url", "smtp://"+peer+"/client.example", "--mail-from", "bob@partner.test",
		"--mail-rcpt", "ann@office.test", "--upload-file", o.write("back.eml", back))
	letter, err := os.ReadFile(o.awaitFiles("data/mail/office.test/ann/new/*", 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(back, "\r\n", "\n"); !strings.HasSuffix(string(letter), want) {
		t.Errorf("we got:\n%s\nwant at its end:\n%s", letter, want)
	}

	// A domain that does not exist comes back to the writer as a report.
	o.run("", "curl", "-sS", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "ann@office.test",
		"--mail-rcpt", "bob@elsewhere.test", "--upload-file", file)
	for _, f := range o.awaitFiles("data/mail/office.test/ann/new/*", 2) {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), "multipart/report") &&
			!strings.Contains(string(data), "Final-Recipient: rfc822; bob@elsewhere.test") {
			t.Errorf("the report:\n%s", data)
		}
	}
}

// awaitLetter waits for the first letter in a folder of somebody else's.
func awaitLetter(t *testing.T, folder string) string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); <-tick.C {
		if found, _ := filepath.Glob(folder + "/*"); len(found) > 0 {
			data, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
	t.Fatalf("nothing came to %s", folder)
	return ""
}
