//go:build interop

package main

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relayd/relay/relaytest"
)

// remoteOffice is an office whose DNS names a scripted server as the exchanger of one.test, and
// that tries again soon.
func remoteOffice(t *testing.T, script string) (*office, *relaytest.MXServer) {
	t.Helper()
	dns := relaytest.ServeDNS(t, "one.test. MX 10 mx.one.test.\nmx.one.test. A 127.0.0.2\n")
	parsed, err := relaytest.ParseMXScript(script)
	if err != nil {
		t.Fatal(err)
	}
	mxPort := freePort()
	mx, err := relaytest.NewMX(fmt.Sprintf("127.0.0.2:%d", mxPort), parsed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mx.Close() })
	o := openOffice(t, officeConfig+fmt.Sprintf("[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n"+
		"[queue]\nretry = [\"500ms\"]\nwarn_after = \"1m\"\ngive_up_after = \"2m\"\n", dns.Addr(), mxPort))
	return o, mx
}

const storyLetter = "Subject: for three\r\nMessage-ID: <three@office.test>\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\nFrom: ann@office.test\r\nTo: x@one.test\r\n\r\n.first\r\n.\r\nlast\r\n"

// sendByCurl gives the letter to relayd, to all recipients in one transaction.
func (o *office) sendByCurl(letter string, rcpts ...string) {
	o.t.Helper()
	args := []string{"-sS", "--url", "smtp://" + o.addrs["smtp"] + "/client.example", "--mail-from", "ann@office.test",
		"--upload-file", o.write("story.eml", letter)}
	for _, r := range rcpts {
		args = append(args, "--mail-rcpt", r)
	}
	o.run("", "curl", args...)
}

// A server that greylists gets the letter at the second attempt, as it was sent and once.
func TestInteropGreylisting(t *testing.T) {
	o, mx := remoteOffice(t, "first 1 rcpt * 451 4.7.1 greylisted, come back later\n")
	o.sendByCurl(storyLetter, "x@one.test", "y@one.test")
	if err := mx.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	letters := mx.Letters()
	if len(letters) != 1 || len(letters[0].Rcpts) != 2 || !strings.HasSuffix(string(letters[0].Body), storyLetter) {
		t.Errorf("the remote has %+v", letters)
	}
	refused := 0
	for _, c := range mx.Commands() {
		if strings.HasPrefix(c, "RCPT TO:<x@one.test>") {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("x@one.test was named %d times, not once refused and once taken", refused)
	}
	if v := mx.Violations(); len(v) > 0 {
		t.Errorf("we broke the rules: %q", v)
	}
}

// One of three recipients is refused: the others get the letter, and ann collects a report that
// any mail program understands, by curl over STLS.
func TestInteropReportCollected(t *testing.T) {
	o, mx := remoteOffice(t, "starttls\nrcpt bob@* 550 5.1.1 no such person on this floor\n")
	o.sendByCurl(storyLetter, "x@one.test", "bob@one.test", "y@one.test")
	o.awaitFiles("data/mail/office.test/ann/new/*", 1)
	got := o.run("", "curl", "-sS", "--ssl-reqd", "-k", "--url", "pop3://"+o.addrs["pop3"]+"/1", "--user", "ann@office.test:"+officePassword)
	if letters := mx.Letters(); len(letters) != 1 || len(letters[0].Rcpts) != 2 || !letters[0].TLS {
		t.Errorf("the remote has %+v", letters)
	}
	human, status, original := reportParts(t, got)
	wantAll(t, human, `bob@one\.test`, `no such person on this\s+floor`)
	wantAll(t, status, `^Reporting-MTA: dns; ?mail\.office\.test\r?$`, `^Final-Recipient: rfc822; ?bob@one\.test\r?$`, `^Action: failed\r?$`,
		`^Status: 5\.1\.1\r?$`, `^Remote-MTA: dns; ?mx\.one\.test`, `^Diagnostic-Code: smtp; ?550[ -]5\.1\.1 no such person on this floor`)
	wantAll(t, original, `^Message-ID: <three@office\.test>\r?$`)
	if strings.Contains(status, "x@one.test") {
		t.Errorf("the report speaks of those who got the letter:\n%s", status)
	}
}

// reportParts takes an RFC 3464 report apart with the standard library's MIME.
func reportParts(t *testing.T, text string) (human, status, original string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("%s %v, %v\n%s", kind, params, err, text)
	}
	if from := m.Header.Get("Return-Path"); from != "<>" {
		t.Errorf("Return-Path: %s", from)
	}
	parts := map[string]string{}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		parts[kind] = string(content)
	}
	return parts["text/plain"], parts["message/delivery-status"], parts["text/rfc822-headers"]
}

// curl sends over STARTTLS with a login, and collects over STLS.
func TestInteropCurlTLS(t *testing.T) {
	o := openOffice(t, officeConfig)
	user := "ann@office.test:" + officePassword
	o.run("", "curl", "-sS", "--ssl-reqd", "-k", "--url", "smtp://"+o.addrs["submission"]+"/client.example", "--user", user,
		"--mail-from", "ann@office.test", "--mail-rcpt", "ann@office.test", "--upload-file", o.write("a.eml", storyLetter))
	got := o.run("", "curl", "-sS", "--ssl-reqd", "-k", "--url", "pop3://"+o.addrs["pop3"]+"/1", "--user", user)
	if body(got) != storyLetter {
		t.Errorf("collected:\n%s\nsent:\n%s", got, storyLetter)
	}
	wantAll(t, got, `with ESMTPSA`)
	if out, err := o.try("", "curl", "-sS", "--ssl-reqd", "-k", "--url", "pop3://"+o.addrs["pop3"]+"/1", "--user", "ann@office.test:wrong"); err == nil {
		t.Errorf("a wrong password collects:\n%s", out)
	}
}

// fetchmail moves the mailbox to its MDA, octet for octet, and leaves it empty.
func TestInteropFetchmail(t *testing.T) {
	o := openOffice(t, officeConfig)
	letters := []string{storyLetter, "Subject: two\r\nFrom: ann@office.test\r\n\r\n\xe9\xe8 8-bit\r\n" + strings.Repeat("x", 990) + "\r\n", "Subject: empty\r\n\r\n"}
	for _, l := range letters {
		o.sendByCurl(l, "ann@office.test")
	}
	host, port, _ := strings.Cut(o.addrs["pop3"], ":")
	rc := o.write("fetchmailrc", fmt.Sprintf("set no bouncemail\nset invisible\npoll %s protocol pop3 port %s\n user \"ann@office.test\" password %q\n"+
		" no sslcertck fetchall no rewrite stripcr mda \"cat >> %s\"\n", host, port, officePassword, o.path("inbox")))
	cmd := exec.CommandContext(t.Context(), "fetchmail", "-f", rc, "--nodetach", "--pidfile", o.path("fetchmail.pid"), "-v")
	cmd.Env = append(os.Environ(), "FETCHMAILHOME="+o.dir, "HOME="+o.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	inbox, err := os.ReadFile(o.path("inbox"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters {
		if !bytes.Contains(inbox, []byte(strings.ReplaceAll(l, "\r\n", "\n"))) {
			t.Errorf("fetchmail did not collect %.40q as it was sent:\n%s", l, inbox)
		}
	}
	if left := o.run("", "curl", "-sS", "--url", "pop3://"+o.addrs["pop3"]+"/", "--user", "ann@office.test:"+officePassword); strings.TrimSpace(left) != "" {
		t.Errorf("fetchmail left %q", left)
	}
}

// The README's curl block, in a development office.
func TestInteropREADME(t *testing.T) {
	for _, b := range readmeBlocks(t) {
		if b.test != "curl" {
			continue
		}
		o := openDevOffice(t)
		script := strings.NewReplacer("127.0.0.1:2525", o.addrs["smtp"], "127.0.0.1:1100", o.addrs["pop3"]).Replace(b.text)
		wantAll(t, o.shell("export RELAYD_PASSWORD="+o.password+"\n"+script), `^1 \d+\r?$`, `^my second letter\r?$`)
	}
}

// The README's units satisfy systemd, where it is installed, and are called safe by it.
func TestInteropUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze")
	}
	dir := t.TempDir()
	unit := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "/usr/local/bin/", filepath.Dir(bin(t, "relayd"))+"/")), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var units []string
	for _, b := range readmeBlocks(t) {
		switch b.test {
		case "service unit":
			units = append(units, unit("relayd.service", b.text))
		case "socket unit":
			for name, port := range map[string]string{"smtp": "25", "submission": "587", "submissions": "465", "pop3": "110", "pop3s": "995"} {
				text := strings.NewReplacer("smtp", name, "=25", "="+port).Replace(b.text)
				units = append(units, unit("relayd-"+name+".socket", text))
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--man=no"}, units...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	if out, err := cmd.CombinedOutput(); err != nil || complains(string(out), "relayd") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	security := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", filepath.Join(dir, "relayd.service"))
	if out, err := security.CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// complains says whether a line of systemd-analyze is about units of ours.
func complains(out, name string) bool {
	for line := range strings.Lines(out) {
		if strings.Contains(line, name) {
			return true
		}
	}
	return false
}
