package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"unicode"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/users"
)

// devUser is the one user of the development office.
var devUser = relay.Address{Local: "ann", Domain: "office.test"}

// devData is its folder where --data names no other; `relayctl --config dev` looks there.
const devData = "data"

// devConfig is the development office under dir. Each of listen is SERVICE=HOST:PORT and takes
// the place of the service's own addresses, so that a second office fits beside the first and
// tests need no fixed port. The hosts are loopback only: the office's one password was printed
// on a screen, and whoever connects may relay.
func devConfig(dir string, listen []string) (*config.Config, error) {
	cfg := config.Dev(dir)
	lists := map[string]*[]string{
		"smtp": &cfg.Listen.SMTP, "submission": &cfg.Listen.Submission, "submissions": &cfg.Listen.Submissions,
		"pop3": &cfg.Listen.POP3, "pop3s": &cfg.Listen.POP3S, "metrics": &cfg.Listen.Metrics,
	}
	named := map[string][]string{}
	for _, word := range listen {
		service, addr, _ := strings.Cut(word, "=")
		if lists[service] == nil {
			return nil, fmt.Errorf("%w: --listen %s: it is SERVICE=127.0.0.1:PORT, and SERVICE one of smtp, submission, submissions, pop3, pop3s, metrics", errUsage, word)
		}
		at, err := netip.ParseAddrPort(addr)
		if err != nil || !at.Addr().IsLoopback() {
			return nil, fmt.Errorf("%w: --listen %s: the development office listens on 127.0.0.1:PORT or [::1]:PORT only", errUsage, word)
		}
		named[service] = append(named[service], addr)
	}
	for service, addrs := range named {
		*lists[service] = addrs
	}
	return cfg, nil
}

// welcome gives the development office its user at the first start and tells a newcomer, in plain
// words, where everything is and what to type next. Every command it prints works as it stands.
func (h *house) welcome(ctx context.Context, w io.Writer) error {
	password := ""
	if !h.users.Exists(devUser) {
		password = users.GeneratePassword()
		if err := h.users.Add(ctx, devUser, password); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, welcomeText(h.config().DataDir, h.listeners, password))
	return err
}

// welcomeText is what the newcomer reads; password is empty after the first start, when only its
// hash is left.
func welcomeText(data string, open []listener, password string) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	ctl := "bin/relayctl --config dev"
	if here, err := filepath.Abs(devData); err != nil || here != data {
		ctl = "bin/relayctl --data-dir " + quoted(data)
	}
	say("relayd --dev: the development office office.test is open, on this machine only.\n")
	for _, l := range open {
		if _, ok := l.Addr().(*net.TCPAddr); ok {
			say("  %-11s %s", l.service, l.Addr())
		}
	}
	say("  %-11s %s", "data", data)
	say("  %-11s %s\n", "user", devUser)
	say("In another terminal, in this folder. The password, for all that follows:\n")
	if password == "" {
		say("  (it was printed at the first start; %s user passwd %s makes a new one)\n", ctl, devUser)
	} else {
		say("  export RELAYD_PASSWORD=%s\n", password)
	}
	say("Send a letter, see it, read it:\n")
	say(`  printf 'Subject: hello\n\nmy first letter\n' | %s mail send --from %s --to %[2]s`, ctl, devUser)
	say("  %s mail ls %s", ctl, devUser)
	say("  %s mail get %s 1\n", ctl, devUser)
	say("Look around:\n")
	say("  %s queue ls\n  %[1]s status\n  %[1]s --help\n", ctl)
	say("Stop it with Ctrl-C.\n")
	return b.String()
}

// quoted is a word for the shell.
func quoted(word string) string {
	special := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-", r)
	}
	if !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
