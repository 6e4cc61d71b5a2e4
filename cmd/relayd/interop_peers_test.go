//go:build interop

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// peerDir is a folder that programs which drop their privileges can enter; mail in it is nobody's.
func peerDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	mail := filepath.Join(dir, "mail")
	if err := errors.Join(os.Mkdir(mail, 0o755), os.Chown(mail, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// nobody is that user in Debian, and its group.
const nobody = 65534

// runPeer runs a server in the foreground until the test ends; network and addr are where it answers.
func runPeer(t *testing.T, dir, network, addr, path string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%s said:\n%s", path, said)
		}
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); <-tick.C {
		if c, err := net.Dial(network, addr); err == nil {
			c.Close()
			return
		}
	}
	t.Fatalf("%s does not answer at %s", path, addr)
}

// collected are the texts of n letters, without the trace of those who carried them.
func (o *office) collected(pattern string, n int) (all []string) {
	o.t.Helper()
	for _, f := range o.awaitFiles(pattern, n) {
		data, err := os.ReadFile(f)
		if err != nil {
			o.t.Fatal(err)
		}
		_, text, _ := strings.Cut(strings.ReplaceAll(string(data), "\r\n", "\n"), "\nX-Here: it begins\n")
		all = append(all, text)
	}
	return all
}

// A letter to bob with everything that can be spoilt: dots, trailing blanks, 8-bit text, a long line.
const spoilable = "From: Ann <ann@office.test>\nX-Here: it begins\nSubject: all\n\n.\n..\n.dot\ntrailing \t\nGr\u00fc\u00dfe\n"

// Debian's OpenSMTPD, which has no PIPELINING, takes our letters as they are, a hundred of them on few
// connections, and its refusal comes back to the writer in its own words.
func TestInteropOpenSMTPD(t *testing.T) {
	root := os.Getenv("OPENSMTPD")
	if root == "" {
		t.Fatal("no OPENSMTPD, the folder of its package: run make interop")
	}
	dir, port := peerDir(t), freePort()
	o := openOffice(t, officeConfig+fmt.Sprintf("[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n",
		relaytest.ServeDNS(t, "partner.test. MX 10 mx.partner.test.\nmx.partner.test. A 127.0.0.7\n").Addr(), port))
	conf := filepath.Join(dir, "smtpd.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf(`listen on 127.0.0.7 port %d hostname mx.partner.test
action "keep" maildir "%s/mail/%%{dest.user}" virtual { "bob@partner.test" = "nobody" }
match from any for domain "partner.test" action "keep"
`, port, dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	runPeer(t, dir, "tcp", fmt.Sprintf("127.0.0.7:%d", port), filepath.Join(root, "usr/sbin/smtpd"), "-d", "-v", "-f", conf)

	send := func(to, text string) {
		t.Helper()
		o.run("", "curl", "-sS", "--crlf", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "ann@office.test",
			"--mail-rcpt", to, "--upload-file", o.write("letter", text))
	}
	send("bob@partner.test", spoilable)
	mailbox, err := filepath.Rel(o.dir, filepath.Join(dir, "mail/bob/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(spoilable, "X-Here: it begins\n")
	if got := o.collected(mailbox, 1)[0]; got != want {
		t.Errorf("OpenSMTPD keeps %q, want %q", got, want)
	}
	for range 100 {
		send("bob@partner.test", spoilable)
	}
	if got := o.collected(mailbox, 101); len(got) != 101 {
		t.Errorf("%d letters", len(got))
	}
	send("stranger@partner.test", spoilable)
	report := o.awaitFiles("data/mail/office.test/ann/new/*", 1)
	text, err := os.ReadFile(report[0])
	if err != nil || len(report) != 1 || !strings.Contains(string(text), "Diagnostic-Code: smtp; 524 5.2.4 ") {
		t.Errorf("%v, %d reports:\n%s", err, len(report), text)
	}
}

// dovecotLMTP is a Dovecot that only keeps mail. %[1]s is its folder.
const dovecotLMTP = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
protocols = lmtp
ssl = no
mail_location = maildir:%[1]s/mail/%%n
recipient_delimiter = +
first_valid_uid = 1
passdb {
  driver = passwd-file
  args = %[1]s/passwd
}
userdb {
  driver = passwd-file
  args = %[1]s/passwd
}
service lmtp {
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
}
`

// Debian's Dovecot keeps a domain over LMTP: it is asked who is there, takes letters as they are, and what
// waits while it is away arrives when it is back.
func TestInteropDovecotLMTP(t *testing.T) {
	dir := peerDir(t)
	for name, text := range map[string]string{
		"dovecot.conf": fmt.Sprintf(dovecotLMTP, dir),
		"passwd":       fmt.Sprintf("ann@office.test::%[1]d:%[1]d::%[2]s/mail::\nbob@office.test::%[1]d:%[1]d::%[2]s/mail::\n", nobody, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := strings.Replace(officeConfig, "postmaster = \"ann\"\n",
		fmt.Sprintf("postmaster = \"ann\"\nserver = \"lmtp:%s/lmtp\"\nrecipients = \"ask\"\n", dir), 1)
	config = strings.Replace(config, "127.0.0.0/8", "127.0.0.9/32", 1) // the writers are strangers
	o := openOffice(t, config)
	send := func(to string) (string, error) {
		return o.try("", "curl", "-sS", "--crlf", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "writer@partner.test",
			"--mail-rcpt", to, "--upload-file", o.write("letter", spoilable))
	}
	// ann is a user here, so nobody needs to be asked; of bob nobody knows yet.
	if out, err := send("ann@office.test"); err != nil {
		t.Errorf("ann, while Dovecot is away: %v\n%s", err, out)
	}
	if out, err := send("bob@office.test"); err == nil || !strings.Contains(out, "451") {
		t.Errorf("bob, while Dovecot is away: %v\n%s", err, out)
	}
	o.awaitOutput("451 4.4.1 cannot connect to "+dir+"/lmtp", "queue", "ls")
	runPeer(t, dir, "unix", filepath.Join(dir, "lmtp"), "/usr/sbin/dovecot", "-F", "-c", filepath.Join(dir, "dovecot.conf"))
	o.ctl("", "queue", "retry", "--all")
	mailbox := func(user string) string {
		rel, err := filepath.Rel(o.dir, filepath.Join(dir, "mail", user, "new/*"))
		if err != nil {
			t.Fatal(err)
		}
		return rel
	}
	_, want, _ := strings.Cut(spoilable, "X-Here: it begins\n")
	if got := o.collected(mailbox("ann"), 1)[0]; got != want {
		t.Errorf("Dovecot keeps %q, want %q", got, want)
	}
	o.close() // what could not be asked is not asked again for a minute, but for a restart
	o.open()
	if out, err := send("bob+tag@office.test"); err != nil {
		t.Errorf("bob: %v\n%s", err, out)
	}
	if got := o.collected(mailbox("bob"), 1)[0]; got != want {
		t.Errorf("Dovecot keeps %q, want %q", got, want)
	}
	if out, err := send("nobody@office.test"); err == nil || !strings.Contains(out, "550") {
		t.Errorf("nobody: %v\n%s", err, out)
	}
}

// awaitOutput waits until a verb of relayctl prints a text.
func (o *office) awaitOutput(want string, verb ...string) {
	o.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	out := ""
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); <-tick.C {
		if out = o.ctl("", verb...); strings.Contains(out, want) {
			return
		}
	}
	o.t.Fatalf("relayctl %q does not say %q:\n%s", verb, want, out)
}
