//go:build peers

package main

import (
	"bufio"
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

	"relayd/relay"
	"relayd/relay/relaytest"
	"relayd/relay/users"
)

// mailServer is relayd, Postfix, Dovecot or a bare server, with processes and folders of its own.
type mailServer struct {
	name, version string
	addr          string // where it takes mail
	pop3          string
	dir           string
	cmd           *exec.Cmd // the process that is the root of its tree
	tree          tree
	start         func() // and return once it has been started, not when it answers
	stop          func()
	inbox         func(user string) string // a user's folder of new letters
	settled       func() bool              // no letter is between two places
	list, retry   []string                 // the commands that list the queue and try all of it now
}

const benchPassword = "correct horse battery"

// run makes a program the server's root, until the test ends or s.cmd is stopped.
func (s *mailServer) run(t *testing.T, log string, env []string, dir, path string, args ...string) {
	t.Helper()
	s.launch(t, log, env, dir, path, args...)
	s.await(t, s.addr)
	t.Cleanup(func() { s.cmd.Process.Kill(); s.cmd.Wait() })
}

func (s *mailServer) launch(t *testing.T, log string, env []string, dir, path string, args ...string) {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, out, out
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.tree = tree{s.cmd.Process.Pid}
}

// await returns when a server greets.
func (s *mailServer) await(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(500 * time.Microsecond) {
		if c, err := greeted(addr); err == nil {
			c.Close()
			return
		}
	}
	t.Fatalf("%s does not answer at %s", s.name, addr)
}

// greeted connects and waits for the first line.
func greeted(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	c.SetReadDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line[0] != '2' && line[0] != '+' {
		c.Close()
		return nil, fmt.Errorf("greeted with %q: %w", line, errors.Join(err))
	}
	return c, nil
}

// startUp is the time from nothing to the first greeting.
func (s *mailServer) startUp(t *testing.T) time.Duration {
	t.Helper()
	s.stop()
	begin := time.Now()
	s.start()
	s.await(t, s.addr)
	return time.Since(begin)
}

// output runs a command of the server's and returns what it printed.
func output(t *testing.T, command []string) []byte {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		exit, _ := errors.AsType[*exec.ExitError](err)
		t.Fatalf("%q: %v: %s", command, err, exit.Stderr)
	}
	return out
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// serverDir is a folder of a server's own, which it can enter without our privileges. Its parent is
// marked as the top of hierarchies (chattr +T), so that ext4 gives each server another part of the
// disk: ext4 takes long to make a file where many have been deleted in the last five seconds, and the
// one server's deletions should not slow the other.
func serverDir(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	exec.Command("chattr", "+T", top).Run() // elsewhere than on ext4 there is no need
	dir := filepath.Join(top, "server")
	made(t, dir)
	for d := dir; d != "/" && d != filepath.Clean(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func made(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// peerUsers are the mailboxes of both servers: one for each burst, so that each begins empty.
const peerUsers = 40

const slowUser = "slow"

func peerUser(i int) string { return fmt.Sprintf("user%d", i) }

const peerConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = %q
pop3 = %q
[domains."office.test"]
postmaster = "user0"
[trust]
networks = ["127.0.0.0/8"]
[dns]
servers = [%q]
[outbound]
port = %d
allow_loopback = true
[limits]
connections = 1100
connections_per_address = 1100
min_free_disk = "1MB"
`

// startRelayd runs the relayd of `make build` with its defaults, but for the limits that one
// client machine alone would hit. Its foreign mail goes to 127.0.0.2, port mxPort.
func startRelayd(t *testing.T, mxPort int) *mailServer {
	t.Helper()
	dns := relaytest.ServeDNS(t, benchZone)
	dir := serverDir(t)
	s := &mailServer{name: "relayd", dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", freePort()), pop3: fmt.Sprintf("127.0.0.1:%d", freePort())}
	config := write(t, filepath.Join(dir, "relayd.toml"), fmt.Sprintf(peerConfig, s.addr, s.pop3, dns.Addr(), mxPort))
	ctl := []string{builtBinary(t, "relayctl"), "--config", config}
	made(t, filepath.Join(dir, "data"))
	addUsers(t, filepath.Join(dir, "data/users"))
	s.version = strings.TrimSpace(string(output(t, []string{builtBinary(t, "relayd"), "--version"})))
	s.list = append(ctl, "queue", "ls")
	s.retry = append(ctl[:3:3], "queue", "retry", "--all", "--yes")
	s.inbox = func(user string) string { return filepath.Join(dir, "data/mail/office.test", user, "new") }
	s.settled = func() bool { return true }
	s.start = func() {
		s.launch(t, filepath.Join(dir, "log"), nil, dir, builtBinary(t, "relayd"), "--config", config)
	}
	s.stop = func() {
		if s.cmd != nil {
			s.cmd.Process.Signal(syscall.SIGTERM)
			s.cmd.Wait()
			s.cmd = nil
		}
	}
	t.Cleanup(s.stop)
	s.start()
	s.await(t, s.addr)
	return s
}

func builtBinary(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("make build first: %v", err)
	}
	return path
}

// addUsers makes the mailboxes. Their password hash is one that costs nothing, so that a login shows
// the servers and not argon2id; slowUser has the hash that relayctl makes.
func addUsers(t *testing.T, file string) {
	t.Helper()
	cheap, err := users.Open(file, users.WithParams(users.Params{Memory: 64, Time: 1, Threads: 1}))
	if err != nil {
		t.Fatal(err)
	}
	usual, err := users.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range peerUsers {
		if err := cheap.Add(t.Context(), relay.Address{Local: peerUser(i), Domain: "office.test"}, benchPassword); err != nil {
			t.Fatal(err)
		}
	}
	if err := usual.Add(t.Context(), relay.Address{Local: slowUser, Domain: "office.test"}, benchPassword); err != nil {
		t.Fatal(err)
	}
}

// postfixMain is Debian's main.cf (/usr/share/postfix/main.cf.debian) and what any office has to
// say: its name, its domain, where its maildirs are, and here a sink for all other mail.
const postfixMain = `
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
readme_directory = no
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = mail.office.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
virtual_mailbox_domains = office.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = texthash:%[1]s/etc/mailboxes
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
transport_maps = inline:{sink.test=smtp:[127.0.0.2]:%[4]d}
smtp_bind_address = 127.0.0.1
alias_maps =
alias_database =
`

// startPostfix runs Debian's Postfix as shipped, with folders of its own.
func startPostfix(t *testing.T, mxPort int) *mailServer {
	t.Helper()
	dir := serverDir(t)
	etc, mail := filepath.Join(dir, "etc"), filepath.Join(dir, "mail")
	s := &mailServer{name: "Postfix", dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", freePort())}
	made(t, etc, mail, filepath.Join(dir, "queue"), filepath.Join(dir, "data"))
	owner := ownerOf(t, "nobody")
	if err := errors.Join(os.Chown(mail, owner.uid, owner.gid), os.Chown(filepath.Join(dir, "data"), ownerOf(t, "postfix").uid, -1)); err != nil {
		t.Fatal(err)
	}
	var mailboxes strings.Builder
	for i := range peerUsers {
		fmt.Fprintf(&mailboxes, "%[1]s@office.test %[1]s/\n", peerUser(i))
	}
	write(t, filepath.Join(etc, "mailboxes"), mailboxes.String())
	write(t, filepath.Join(etc, "main.cf"), fmt.Sprintf(postfixMain, dir, owner.uid, owner.gid, mxPort))
	write(t, filepath.Join(etc, "master.cf"), postfixMaster(t, s.addr))
	s.version = strings.TrimSpace("Postfix " + string(output(t, []string{"postconf", "-c", etc, "-h", "mail_version"})))
	s.list, s.retry = []string{"postqueue", "-c", etc, "-p"}, []string{"postqueue", "-c", etc, "-f"}
	s.inbox = func(user string) string { return filepath.Join(mail, user, "new") }
	s.settled = func() bool {
		return fileCount(filepath.Join(dir, "queue/incoming")) == 0 && fileCount(filepath.Join(dir, "queue/active")) == 0
	}
	s.start = func() {
		output(t, []string{"postfix", "-c", etc, "start"})
		s.tree = tree{masterOf(t, filepath.Join(dir, "queue/pid/master.pid"))}
	}
	s.stop = func() { exec.Command("postfix", "-c", etc, "stop").Run() }
	t.Cleanup(s.stop)
	s.start()
	s.await(t, s.addr)
	return s
}

// postfixMaster is Debian's master.cf without chroot, for which the folders would need files of the
// system's, and with our address for its own.
func postfixMaster(t *testing.T, addr string) string {
	t.Helper()
	shipped, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(shipped)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || strings.HasPrefix(line, "#"):
			continue
		case line[0] != ' ' && line[0] != '\t' && len(f) >= 8:
			if f[0] == "smtp" && f[1] == "inet" {
				f[0] = addr
			}
			f[4] = "n"
			line = strings.Join(f, " ") + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}

func masterOf(t *testing.T, file string) (pid int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// fileCount is how many names a folder has.
func fileCount(dir string) int {
	d, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return len(names)
}

type owner struct{ uid, gid int }

func ownerOf(t *testing.T, name string) (o owner) {
	t.Helper()
	for flag, to := range map[string]*int{"-u": &o.uid, "-g": &o.gid} {
		if _, err := fmt.Sscan(string(output(t, []string{"id", flag, name})), to); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

const dovecotConfig = `
protocols = pop3
listen = 127.0.0.1
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:%[1]s/mail/%%n
passdb {
  driver = passwd-file
  args = %[2]s
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[4]d home=%[1]s/mail/%%n
}
service pop3-login {
  inet_listener pop3 {
    port = %[5]s
  }
  inet_listener pop3s {
    port = 0
  }
}
`

// startDovecot runs Debian's Dovecot with its defaults over its own maildirs and our users file.
func startDovecot(t *testing.T, users string) *mailServer {
	t.Helper()
	dir := serverDir(t)
	made(t, filepath.Join(dir, "run"), filepath.Join(dir, "state"), filepath.Join(dir, "mail"))
	s := &mailServer{name: "Dovecot", dir: dir, pop3: fmt.Sprintf("127.0.0.1:%d", freePort())}
	_, port, _ := net.SplitHostPort(s.pop3)
	owner := ownerOf(t, "nobody")
	// Its authentication process reads the file without our privileges.
	data, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	users = write(t, filepath.Join(dir, "users"), string(data))
	config := write(t, filepath.Join(dir, "dovecot.conf"), fmt.Sprintf(dovecotConfig, dir, users, owner.uid, owner.gid, port))
	version, _, _ := strings.Cut(string(output(t, []string{"dovecot", "--version"})), " ")
	s.version = "Dovecot " + version
	s.launch(t, filepath.Join(dir, "out"), nil, dir, "dovecot", "-F", "-c", config)
	t.Cleanup(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		s.cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "dovecot.log"))
			t.Logf("Dovecot said:\n%s", log)
		}
	})
	s.await(t, s.pop3)
	return s
}
