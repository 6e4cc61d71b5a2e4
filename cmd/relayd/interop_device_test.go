//go:build interop

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const deviceConfig = officeConfig + `
[[listen_device]]
address = "127.0.0.1:0"
networks = ["127.0.0.1"]
auth = "optional"
plaintext_auth = true
sender = "scanner@office.test"
[[listen_device]]
address = "127.0.0.1:0"
networks = ["127.0.0.1"]
tls = "implicit"
auth = "required"
[[listen_device]]
address = "127.0.0.1:0"
networks = ["192.0.2.0/24"]
`

// swaks drives the device lane over every combination of TLS and login that devices have, and
// relayctl devices says what went wrong.
func TestInteropDevices(t *testing.T) {
	o := openOffice(t, deviceConfig)
	login := func(mech, password string) []string {
		return []string{"--auth", mech, "--auth-user", "ann@office.test", "--auth-password", password}
	}
	letters := 0
	for _, c := range []struct {
		name, service string
		args          []string
		want          string // of swaks
		says          string // relayctl devices, afterwards
	}{
		{"plain", "device", nil, "250 2.0.0 queued as ", ""},
		{"STARTTLS", "device", []string{"--tls"}, "250 2.0.0 queued as ", ""},
		{"login in the clear", "device", login("LOGIN", officePassword), "235 2.7.0 ", ""},
		{"PLAIN", "device", login("PLAIN", officePassword), "235 2.7.0 ", ""},
		{"login under STARTTLS", "device", append(login("LOGIN", officePassword), "--tls"), "235 2.7.0 ", ""},
		{"wrong password", "device", login("LOGIN", "wrong"), "535 5.7.8 ", "name or password wrong"},
		{"elsewhere", "device", []string{"--to", "eve@elsewhere.test"}, "550 5.7.1 ", "recipient not allowed: eve@elsewhere.test"},
		{"pipelined", "device", []string{"--pipeline"}, "250 2.0.0 queued as ", ""},
		{"implicit TLS without a login", "device2", []string{"--tlsc"}, "530 5.7.0 ", "log in first"},
		{"implicit TLS", "device2", append(login("LOGIN", officePassword), "--tlsc", "--from", "ann@office.test"), "250 2.0.0 queued as ", ""},
		{"no TLS", "device2", []string{"--timeout", "2"}, "", "did not start TLS where TLS comes first|TLS failed"},
		{"a stranger", "device3", nil, "554 5.7.1 ", "its address is not in networks"},
	} {
		args := append([]string{"--helo", "scanner", "--timeout", "20", "--server", o.addrs[c.service], "--from", "km@copier.invalid",
			"--to", "ann@office.test", "--body", c.name}, c.args...)
		out, _ := o.try("", "swaks", args...)
		if !strings.Contains(out, c.want) {
			t.Errorf("%s: %s", c.name, out)
		}
		if strings.Contains(out, "queued as") {
			letters++
			o.awaitFiles("data/mail/office.test/ann/new/*", letters)
		}
		if c.says != "" {
			wantAll(t, o.ctl("", "devices"), c.says)
		}
	}
	if letters != 7 {
		t.Errorf("%d letters came", letters)
	}
}

// mail of bsd-mailx sends through relayctl under the name of sendmail: as root over the control
// socket, as somebody else through a drop directory that all may use, and while relayd is down.
func TestInteropMailx(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	dir, err := os.MkdirTemp("", "mailx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	spool := filepath.Join(dir, "spool")
	program, err := os.ReadFile(bin(t, "relayctl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(spool, 0o700), os.Chmod(spool, 0o1733|os.ModeSticky),
		os.WriteFile(filepath.Join(dir, "sendmail"), program, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o := openOfficeIn(t, dir, fmt.Sprintf("drop_dir = %q\n", spool)+officeConfig)
	for _, err := range []error{os.Chmod(o.path("relayd.toml"), 0o644), os.Mkdir(o.path("bin"), 0o755),
		os.WriteFile(o.path("bin/mta"), []byte(fmt.Sprintf("#!/bin/sh\nexec %s/sendmail -C %s/relayd.toml \"$@\"\n", dir, dir)), 0o755),
		os.WriteFile(o.path("mailrc"), []byte(fmt.Sprintf("set sendmail=%s/bin/mta\n", dir)), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mail := func(subject string, as ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "env", append(append([]string{"MAILRC=" + o.path("mailrc"), "HOME=" + dir}, as...),
			"bsd-mailx", "-s", subject, "-b", "ann@office.test", "ann")...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader("one\n..two\n.three\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("mail: %v\n%s", err, out)
		}
	}
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	mail("as root")
	mail("as nobody", nobody...)
	o.awaitFiles("data/mail/office.test/ann/new/*", 2)
	o.close()
	mail("while down", nobody...)
	o.open()
	all := ""
	for _, file := range o.awaitFiles("data/mail/office.test/ann/new/*", 3) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	wantAll(t, all, `^Subject: as root`, `^Subject: as nobody`, `^Subject: while down`, `relayd, from the account nobody\)`, `relayd, from the account root\)`,
		`(?s)one\n\.\.two\n\.three\n`)
	if strings.Contains(all, "Bcc") {
		t.Errorf("Bcc was shown:\n%s", all)
	}
	// A letter is in the maildir a moment before its file is removed.
	o.await(patience, func() string {
		left, _ := os.ReadDir(spool)
		if len(left) == 0 {
			return ""
		}
		return fmt.Sprintf("left in the spool: %v", left)
	})
}
