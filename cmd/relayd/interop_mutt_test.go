//go:build interop

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mutt runs mutt on a terminal of its own, types keys and waits for its end.
func (o *office) mutt(rc, keys string, args ...string) {
	o.t.Helper()
	file := o.write("muttrc", "set resolve=no ssl_starttls=no ssl_force_tls=no confirmappend=no delete=yes quit=yes wait_key=no beep=no mail_check=0\n"+
		"set folder="+o.path("")+" record= postponed= mbox_type=mbox header_cache= move=no\n"+rc+"\npush "+keys+"\n")
	ctx, cancel := context.WithTimeout(o.t.Context(), 3*patience)
	defer cancel()
	command := append([]string{"mutt", "-n", "-F", file}, args...)
	cmd := exec.CommandContext(ctx, "script", "-qec", strings.Join(command, " "), "/dev/null")
	cmd.Dir, cmd.Env = o.dir, append(os.Environ(), "TERM=vt100", "HOME="+o.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("mutt: %v\n%s", err, out)
	}
}

// mutt collects by POP3 what curl sent, and leaves the maildrop empty.
func TestInteropMuttCollects(t *testing.T) {
	o := openOffice(t, officeConfig)
	for i := range 3 {
		o.sendByCurl(fmt.Sprintf("From: bob@office.test\r\nTo: ann@office.test\r\nSubject: number %d\r\n\r\n.a dot, and number %d\r\n", i, i), "ann@office.test")
	}
	o.mutt(fmt.Sprintf("set pop_host=pop://%s pop_user=ann@office.test pop_pass=\"%s\" pop_delete=yes\nset pop_authenticators=user\nset spoolfile=%s",
		o.addrs["pop3"], officePassword, o.write("inbox", "")), "'<fetch-mail>q'")
	got, err := os.ReadFile(o.path("inbox"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if want := fmt.Sprintf("\n.a dot, and number %d\n", i); !strings.Contains(string(got), want) {
			t.Errorf("mutt did not collect number %d:\n%s", i, got)
		}
	}
	if left, _ := filepath.Glob(o.path("data/mail/office.test/ann/[cn]*/*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// mutt and POP3 share a maildir: what mutt reads and flags keeps its number's unique-id, and what
// POP3 fetched is not new to mutt.
func TestInteropMuttSharesTheMaildir(t *testing.T) {
	o := openOffice(t, officeConfig)
	for i := range 3 {
		o.sendByCurl(fmt.Sprintf("From: bob@office.test\r\nTo: ann@office.test\r\nSubject: number %d\r\n\r\nnumber %d\r\n", i, i), "ann@office.test")
	}
	uids := func() []string {
		p, err := openDrop(o.addrs["pop3"])
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		var list []string
		for n := 1; ; n++ {
			words := strings.Fields(p.pop(fmt.Sprintf("UIDL %d", n)))
			if len(words) != 3 || words[0] != "+OK" {
				break
			}
			list = append(list, words[2])
		}
		p.pop("QUIT")
		return list
	}
	before := uids()
	maildir := o.path("data/mail/office.test/ann")
	// Reads the first, flags the second, deletes the third.
	o.mutt("set mbox_type=Maildir sort=date-received", "'<first-entry><display-message>i<first-entry><next-entry>F<next-entry>dq'", "-f", maildir)
	cur, _ := filepath.Glob(maildir + "/cur/*:2,*")
	if len(cur) == 0 {
		t.Error("mutt marked nothing")
	}
	after := uids()
	if len(after) != 2 || slices.ContainsFunc(after, func(uid string) bool { return !slices.Contains(before, uid) }) {
		t.Errorf("unique-ids %q, were %q", after, before)
	}
	p, err := openDrop(o.addrs["pop3"])
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for n := range after {
		if reply := p.pop(fmt.Sprintf("RETR %d", n+1)); !strings.HasPrefix(reply, "+OK") {
			t.Errorf("RETR %d: %s", n+1, reply)
		}
	}
	p.pop("QUIT")
	if fresh, _ := filepath.Glob(maildir + "/new/*"); len(fresh) != 0 {
		t.Errorf("new to mutt although they were fetched: %q", fresh)
	}
	if seen, _ := filepath.Glob(maildir + "/cur/*S"); len(seen) != 2 {
		t.Errorf("%d of 2 are marked as seen", len(seen))
	}
}
