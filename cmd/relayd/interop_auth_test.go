//go:build interop

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const authConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
submission = "127.0.0.1:0"
submissions = "127.0.0.1:0"
pop3 = "127.0.0.1:0"
pop3s = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
`

const (
	scramUser  = "eve@office.test" // a SCRAM verifier; ann has an argon2id hash
	annSecret  = "a secret for APOP alone"
	bareLetter = "To: ann@office.test\nSubject: x\n\nx\n"
)

// loginOffice is an office with ann and eve, whose password is the same, and a letter in eve's box.
func loginOffice(t *testing.T) *office {
	t.Helper()
	o := openOffice(t, authConfig)
	o.ctl(officePassword, "user", "add", scramUser, "--scram", "--password-stdin")
	o.ctl(annSecret, "user", "passwd", scramUser, "--apop", "--password-stdin")
	o.run("", "curl", "-sS", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "x@partner.example",
		"--mail-rcpt", scramUser, "--upload-file", o.write("letter.eml", strings.ReplaceAll(bareLetter, "\n", "\r\n")))
	return o
}

// door is a port with a kind of TLS.
type door struct {
	service string
	first   bool // TLS from the first octet
}

func (d door) String() string {
	if d.first {
		return d.service + " TLS"
	}
	return d.service + " STARTTLS"
}

var (
	submissionDoors = []door{{"submission", false}, {"submissions", true}}
	popDoors        = []door{{"pop3", false}, {"pop3s", true}}
)

// attempt is how a program logs in; an error says that it was not let in.
type attempt func(o *office, d door, mechanism, user, password string) (out string, err error)

// tryLogins lets a program log in by every mechanism through every door, with the right password,
// which must do, and a wrong one, which must not. Left to choose (on, *), programs take what works for
// users of both kinds.
func tryLogins(t *testing.T, doors []door, mechanisms []string, try attempt) {
	t.Helper()
	o := loginOffice(t)
	for _, d := range doors {
		for _, m := range mechanisms {
			for _, user := range []string{scramUser, "ann@office.test"} {
				password := officePassword
				if m == "apop" || m == "+APOP" {
					password = annSecret
				}
				has := user == scramUser || !strings.Contains(strings.ToLower(m), "scram") && !strings.Contains(strings.ToLower(m), "apop")
				if out, err := try(o, d, m, user, password); (err == nil) != has {
					t.Errorf("%v %s %s: %v, should be let in: %v\n%s", d, m, user, err, has, out)
				}
				if out, err := try(o, d, m, user, "wrong "+password); err == nil {
					t.Errorf("%v %s %s: in with a wrong password\n%s", d, m, user, out)
				}
				// Or the wait for those who guess grows.
				o.ctl("", "auth", "clear", "--all")
			}
		}
	}
}

// dial is where a door is.
func (o *office) dial(d door) (host, port string) {
	host, port, _ = strings.Cut(o.addrs[d.service], ":")
	return host, port
}

func TestInteropAuthSwaks(t *testing.T) {
	t.Parallel()
	tryLogins(t, submissionDoors, []string{"PLAIN", "LOGIN"}, func(o *office, d door, m, user, password string) (string, error) {
		tls := "--tls"
		if d.first {
			tls = "--tls-on-connect"
		}
		return o.try("", "swaks", "--helo", "client.example", "--timeout", "20", "--server", o.addrs[d.service], tls, "--auth", m,
			"--auth-user", user, "--auth-password", password, "--from", user, "--to", "ann@office.test")
	})
}

func TestInteropAuthCurl(t *testing.T) {
	t.Parallel()
	tryLogins(t, submissionDoors, []string{"PLAIN", "LOGIN", "*"}, func(o *office, d door, m, user, password string) (string, error) {
		letter := o.write("own.eml", strings.ReplaceAll("From: "+user+"\n"+bareLetter, "\n", "\r\n"))
		return o.curlLogin(d, "smtp", m, user, password, "--mail-from", user, "--mail-rcpt", "ann@office.test", "--upload-file", letter)
	})
}

func TestInteropAuthCurlPOP3(t *testing.T) {
	t.Parallel()
	tryLogins(t, popDoors, []string{"PLAIN", "LOGIN", "*", "+APOP"}, func(o *office, d door, m, user, password string) (string, error) {
		return o.curlLogin(d, "pop3", m, user, password)
	})
}

func (o *office) curlLogin(d door, scheme, m, user, password string, more ...string) (string, error) {
	if d.first {
		scheme += "s"
	}
	args := []string{"-sS", "--insecure", "--ssl-reqd", "--max-time", "30", "--url", scheme + "://" + o.addrs[d.service] + "/",
		"--user", user + ":" + password, "--login-options", "AUTH=" + m}
	return o.try("", "curl", append(args, more...)...)
}

func TestInteropAuthMsmtp(t *testing.T) {
	t.Parallel()
	tryLogins(t, submissionDoors, []string{"plain", "login", "scram-sha-256", "on"}, func(o *office, d door, m, user, password string) (string, error) {
		host, port := o.dial(d)
		return o.try("From: "+user+"\n"+bareLetter, "msmtp", "--file=/dev/null", "--host="+host, "--port="+port, "--tls=on", startTLS(d), "--tls-certcheck=off",
			"--auth="+m, "--user="+user, "--passwordeval=echo "+password, "--from="+user, "ann@office.test")
	})
}

// startTLS is the flag of msmtp and mpop.
func startTLS(d door) string {
	if d.first {
		return "--tls-starttls=off"
	}
	return "--tls-starttls=on"
}

func TestInteropAuthMpop(t *testing.T) {
	t.Parallel()
	tryLogins(t, popDoors, []string{"user", "plain", "login", "scram-sha-256", "apop", "on"}, func(o *office, d door, m, user, password string) (string, error) {
		for _, folder := range []string{"got/tmp", "got/new", "got/cur"} {
			if err := os.MkdirAll(o.path(folder), 0o700); err != nil {
				o.t.Fatal(err)
			}
		}
		host, port := o.dial(d)
		return o.try("", "mpop", "--file=/dev/null", "--host="+host, "--port="+port, "--tls=on", startTLS(d), "--tls-certcheck=off", "--auth="+m,
			"--user="+user, "--passwordeval=echo "+password, "--delivery=maildir,got", "--uidls-file="+o.path("uidls"), "--keep=on")
	})
}

// GNU SASL binds the login to the connection by tls-exporter; --no-cb is the mechanism without.
func TestInteropAuthGSASL(t *testing.T) {
	t.Parallel()
	tryLogins(t, submissionDoors[:1], []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, func(o *office, d door, m, user, password string) (string, error) {
		args := []string{"--smtp", "--starttls", "--connect", o.addrs[d.service], "--x509-ca-file=", "--mechanism", m, "-a", user, "-z", "", "-p", password}
		if m != "SCRAM-SHA-256-PLUS" {
			args = append(args, "--no-cb")
		}
		out, err := o.try("", "gsasl", args...)
		if err == nil && !strings.Contains(out, "235 2.7.0 ") {
			err = fmt.Errorf("gsasl is content, and we are not")
		}
		return out, err
	})
}

// Dovecot and GNU SASL read the verifiers that we write, and we read theirs.
func TestInteropVerifiers(t *testing.T) {
	t.Parallel()
	o := loginOffice(t)
	data, err := os.ReadFile(o.path("data/users"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		name, field, _ := strings.Cut(strings.TrimSpace(line), ":")
		if !strings.Contains(name, "@") {
			continue
		}
		if out := o.run("", "doveadm", "pw", "-t", field, "-p", officePassword); !strings.Contains(out, "(verified)") {
			t.Errorf("%s: Dovecot says %s", name, out)
		}
		if out, err := o.try("", "doveadm", "pw", "-t", field, "-p", "wrong"); err == nil {
			t.Errorf("%s: Dovecot lets a wrong password in: %s", name, out)
		}
	}
	theirs := strings.TrimSpace(o.run("", "doveadm", "pw", "-s", "SCRAM-SHA-256", "-p", officePassword))
	f, err := os.OpenFile(o.path("data/users"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "dan@office.test:%s\n", theirs)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "gsasl", "--smtp", "--starttls", "--connect", o.addrs["submission"], "--x509-ca-file=", "--mechanism",
		"SCRAM-SHA-256-PLUS", "-a", "dan@office.test", "-z", "", "-p", officePassword)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "235 2.7.0 ") {
		t.Errorf("a verifier of Dovecot's: %v\n%s", err, out)
	}
}
