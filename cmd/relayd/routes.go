package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/quotedprintable"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayd/config"
	"relayd/delivery"
	"relayd/delivery/mx"
	"relayd/relay"
)

// maxPassword is the longest password of a smarthost, in octets.
const maxPassword = 1024

// routes makes the routes of the config, and reads their passwords.
func routes(cfg *config.Config) ([]mx.Route, error) {
	out, err := innerRoutes(cfg)
	if err != nil {
		return nil, err
	}
	for _, r := range cfg.Routes {
		var password mx.Secret
		if r.User != "" {
			var err error
			if password, err = readPassword(r.PasswordFile); err != nil {
				return nil, fmt.Errorf("[[route]] via %s: password_file: %w", r.Via, err)
			}
		}
		for _, to := range r.To {
			route := mx.Route{To: to}
			if r.Via != "" {
				var err error
				if route, err = mx.ParseRoute(to, r.Via); err != nil {
					return nil, err
				}
			}
			route.TLS = r.TLS
			route.From, route.Logins, route.MX = r.From, r.Logins, r.MX
			route.After, route.On = r.After, r.On
			route.User, route.Password = r.User, password
			out = append(out, route)
		}
	}
	return out, nil
}

// readPassword reads the first line of a file that nobody else may read.
func readPassword(path string) (mx.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s: others may read it (mode %04o)\nhint: chmod 600 %[1]s", path, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPassword+3))
	if err != nil {
		return "", err
	}
	line, rest, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	switch {
	case line == "":
		return "", fmt.Errorf("%s: the first line is empty, and should be the password", path)
	case strings.TrimSpace(rest) != "":
		return "", fmt.Errorf("%s: there is more than one line, and only the password should stand there", path)
	case len(line) > maxPassword || strings.ContainsRune(line, 0):
		return "", fmt.Errorf("%s: this is no password: longer than %d octets, or with a NUL", path, maxPassword)
	}
	return mx.Secret(line), nil
}

// checkVia says what is wrong with a host that the operator sends letters by.
func checkVia(via string) error {
	_, err := mx.ParseRoute("*", via)
	return err
}

// hasRoute says whether all mail for d takes a route, so that the DNS need not know d.
func hasRoute(cfg *config.Config, d relay.Domain) bool {
	if _, backup := cfg.RelayDomains[d]; backup || cfg.Domains[d].Server != (config.Server{}) {
		return true
	}
	i := slices.IndexFunc(cfg.Routes, func(r config.Route) bool { return r.Matches(d) })
	return i >= 0 && cfg.Routes[i].Always() && cfg.Routes[i].Via != ""
}

// mayRoute says whether a letter to d that was delivered may have gone by a route that does without
// the DNS. A route by MX host, and one that was tried after direct delivery, proves that there is d.
func mayRoute(cfg *config.Config, d relay.Domain) bool {
	if cfg.Domains[d].Server != (config.Server{}) {
		return true
	}
	return slices.ContainsFunc(cfg.Routes, func(r config.Route) bool {
		return r.Matches(d) && r.Via != "" && len(r.MX)+len(r.On)+r.After == 0
	})
}

// rescueEvery is how often the postmaster is told that our address is refused.
const rescueEvery = 24 * time.Hour

// rescues tells the postmaster of refusals that sent letters to a smarthost. The file's time is that
// of the last letter, so that a restart does not count as a day.
type rescues struct {
	file  string
	heard chan mx.Rescue
}

func newRescues(dataDir string) rescues {
	return rescues{filepath.Join(dataDir, "refused-notice"), make(chan mx.Rescue, 1)}
}

// note is for mx.Config.Rescued.
func (r rescues) note(what mx.Rescue) {
	select {
	case r.heard <- what:
	default: // one of them is told of
	}
}

func (r rescues) run(ctx context.Context, cfg func() *config.Config, submit relay.Submitter, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case what := <-r.heard:
			if info, err := os.Stat(r.file); err == nil && time.Since(info.ModTime()).Abs() < rescueEvery {
				continue
			}
			if err := r.tell(ctx, cfg(), submit, what); err != nil {
				log.Error("the postmaster may not have been told that our address is refused", "room", "routes", "err", err)
			}
		}
	}
}

func (r rescues) tell(ctx context.Context, cfg *config.Config, submit relay.Submitter, what mx.Rescue) error {
	if cfg.DefaultDomain == "" {
		return nil
	}
	now := time.Now()
	to := relay.Address{Local: relay.Postmaster.Local, Domain: cfg.DefaultDomain}
	env := relay.Envelope{ID: relay.NewID(now), Accepted: now, Rcpts: []relay.Recipient{{Addr: to}}}
	letter := rescueNotice(env, cfg.Hostname, what)
	if err := submit.Submit(context.WithoutCancel(ctx), env, bytes.NewReader(letter)); err != nil {
		return err
	}
	stamp := now.Format(time.RFC3339) + "\n"
	return errors.Join(os.WriteFile(r.file, []byte(stamp), 0o600), os.Chtimes(r.file, now, now))
}

func rescueNotice(env relay.Envelope, host relay.Domain, what mx.Rescue) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: \"relayd\" <postmaster@%s>\r\nTo: %s\r\n", host, env.Rcpts[0].Addr)
	fmt.Fprintf(&b, "Subject: Refused: the mail of %s\r\n", host)
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s.refused@%s>\r\n", env.Accepted.Format(time.RFC1123Z), env.ID, host)
	b.WriteString("Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	w := quotedprintable.NewWriter(&b)
	fmt.Fprintf(w, `This is the mail server %s.

The mail server of %s does not take mail from our address:

    %s
    said by %s

The message went to %s instead, as a [[route]] with "on" has it, and so do
all that are refused in the same way. Look whether our address is on a
blocklist, and why: its owner says how to get off. Until then every message
knocks there in vain first; a [[route]] without "on" would spare it that.

You are told once a day for as long as it lasts.
`, host, what.Domain, strings.ReplaceAll(what.Reply.String(), "\n", "\n    "), what.Host, what.Via)
	_ = w.Close() // into memory
	return b.Bytes()
}

// outboundLimits are those of the config.
func outboundLimits(cfg *config.Config) (out []delivery.Limit) {
	for _, l := range cfg.Outbound.Limits {
		out = append(out, delivery.Limit{To: l.To, MX: l.MX, PerMinute: l.PerMinute, Concurrency: l.Concurrency})
	}
	return out
}
