package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"relayd/relay"
)

// Parse checks data, the contents of the file called name. Its error is always an *Invalid.
// Paths in the file are resolved against the folder of name.
func Parse(name string, data []byte) (*Config, error) {
	r := &reader{name: name, data: data, known: map[string][]string{}}
	root, err := r.document()
	if err != nil {
		r.complain(err.at, &problem{text: err.text})
		return nil, &Invalid{r.complaints(r.wrong)}
	}
	c := Default()
	c.Path = name
	r.config(root, c)
	r.unknown()
	if len(r.wrong) > 0 {
		return nil, &Invalid{r.complaints(r.wrong)}
	}
	c.Warnings = r.complaints(r.doubtful)
	return c, nil
}

func (r *reader) document() (*table, *syntaxError) {
	if len(r.data) > MaxFileSize {
		r.data = nil // not worth showing
		return nil, &syntaxError{text: fmt.Sprintf("the file is larger than %d bytes", MaxFileSize)}
	}
	for i := 0; i < len(r.data); {
		c, n := utf8.DecodeRune(r.data[i:])
		if c == utf8.RuneError && n == 1 {
			return nil, &syntaxError{at: span{i, 1}, text: "the file is not in UTF-8 from here on"}
		}
		i += n
	}
	root, err := parseDocument(r.data)
	if err != nil {
		syntax, _ := errors.AsType[*syntaxError](err)
		return nil, syntax
	}
	return root, nil
}

// config reads the whole file; every function below reads one table of it.
func (r *reader) config(root *table, c *Config) {
	s := r.section(root, "")
	folder := filepath.Dir(r.name)
	r.hostname(s, c)
	r.path(s, "data_dir", &c.DataDir, folder)
	if !r.path(s, "drop_dir", &c.DropDir, folder) {
		c.DropDir = filepath.Join(c.DataDir, DropName)
	}
	listeners := r.listen(s.sub("listen"), c, s.t.get("listen_device") != nil)
	r.smtp(s.sub("smtp"), &c.SMTP)
	r.domains(s, c)
	r.relayDomains(s, c)
	r.devices(s, c, listeners)
	r.users(s, c)
	r.trust(s.sub("trust"), c)
	r.submission(s.sub("submission"), c)
	r.policy(s.sub("policy"), &c.Policy)
	r.gate(s.sub("gate"), c)
	r.filters(s.sub("filter"), c, folder)
	r.tls(s.sub("tls"), c, folder)
	names := s.sub("dns")
	servers, _ := many(names, "servers", readServer)
	one(names, "trust_ad", &c.TrustAD, readBool)
	c.DNSServers = whats(servers)
	r.limits(s.sub("limits"), &c.Limits)
	r.queue(s.sub("queue"), &c.Queue)
	r.outbound(s.sub("outbound"), &c.Outbound)
	r.pop3(s.sub("pop3"), c)
	r.log(s.sub("log"), &c.Log)
	r.routes(s, c)
}

func (r *reader) hostname(s section, c *Config) {
	at, ok := one(s, "hostname", &c.Hostname, readDomain)
	switch {
	case ok && !slices.Contains([]byte(c.Hostname), '.'):
		r.warn(at, `give the whole name, such as "mail.office.example"`,
			"other servers distrust the bare name %q", c.Hostname)
	case !ok && s.t.get("hostname") == nil:
		r.complain(at, wrong(`add a line such as hostname = "mail.office.example"`,
			"hostname is missing: the name under which the world knows this server"))
	}
}

// path reads the name of a file or folder and makes it absolute.
func (r *reader) path(s section, name string, dst *string, folder string) (present bool) {
	at, ok := one(s, name, dst, readString)
	switch {
	case !ok:
	case *dst == "":
		r.complain(at, wrong("leave the line out for the default", "%s is empty", name))
	case slices.Contains([]byte(*dst), 0):
		r.complain(at, wrong("", "%s contains a NUL character", name))
	default:
		*dst = absolute(folder, *dst)
	}
	return ok
}

func (r *reader) smtp(s section, c *SMTP) {
	one(s, "bare_newline", &c.BareNewline, readWord(RejectBareNewline, NormalizeBareNewline))
	one(s, "recipient_delimiter", &c.RecipientDelimiter, readDelimiter)
}

func (r *reader) submission(s section, c *Config) {
	one(s, "hide_client", &c.Submission.HideClient, readBool)
	r.plaintextAuth(s, &c.Submission.PlaintextAuth, c)
}

func (r *reader) pop3(s section, c *Config) {
	one(s, "idle_timeout", &c.POP3.IdleTimeout, readDuration)
	one(s, "login_delay", &c.POP3.LoginDelay, readDelay)
	one(s, "undelete", &c.POP3.Undelete, readDelay)
	one(s, "language", &c.POP3.Language, readWord("en", "de", "fr", "es", "ja"))
	r.plaintextAuth(s, &c.POP3.PlaintextAuth, c)
}

// plaintextAuth wants to know whose line is so short that nobody can listen.
func (r *reader) plaintextAuth(s section, dst *bool, c *Config) {
	if at, ok := one(s, "plaintext_auth", dst, readBool); ok && *dst && len(c.TrustNetworks) == 0 {
		r.complain(at, wrong(`name the networks, such as [trust] networks = ["192.168.1.0/24"], or leave the line out`,
			"plaintext_auth lets clients in trust.networks log in without TLS, and there are none"))
	}
}

func (r *reader) trust(s section, c *Config) {
	networks, _ := many(s, "networks", readNetwork)
	c.TrustNetworks = whats(networks)
}

// most bounds counts far above any sense and far below trouble.
const most = 1_000_000

func (r *reader) limits(s section, l *Limits) {
	one(s, "message_size", &l.MessageSize, readSize)
	one(s, "recipients", &l.Recipients, readCount(1, most))
	// Less than 512 octets would refuse commands that RFC 5321 §4.5.3.1.4 allows.
	one(s, "command_line", &l.CommandLine, readCount(512, 65536))
	one(s, "errors", &l.Errors, readCount(1, most))
	one(s, "connections", &l.Connections, readCount(1, most))
	one(s, "connections_per_address", &l.ConnectionsPerAddress, readCount(1, most))
	one(s, "command_timeout", &l.CommandTimeout, readDuration)
	one(s, "data_timeout", &l.DataTimeout, readDuration)
	one(s, "session_timeout", &l.SessionTimeout, readDuration)
	one(s, "min_rate", &l.MinRate, readSize)
	one(s, "received_fields", &l.ReceivedFields, readCount(1, 10_000))
	one(s, "min_free_disk", &l.MinFreeDisk, readFloor)
	one(s, "user_recipients_hour", &l.UserRecipientsHour, readCount(1, most))
	at, _ := one(s, "user_recipients_day", &l.UserRecipientsDay, readCount(1, most))
	if l.UserRecipientsDay < l.UserRecipientsHour {
		r.warn(at, "", "user_recipients_day is %d, so user_recipients_hour, which is %d, is never reached", l.UserRecipientsDay, l.UserRecipientsHour)
	}
	one(s, "pop3_connections", &l.POP3Connections, readCount(1, most))
	one(s, "pop3_connections_per_address", &l.POP3PerAddress, readCount(1, most))
}

func (r *reader) queue(s section, q *Queue) {
	retry, present := many(s, "retry", readDuration)
	if present {
		q.Retry = whats(retry)
	}
	e := s.t.get("retry")
	if present && len(retry) == 0 && e.val.kind == kindList && len(e.val.items) == 0 {
		r.complain(e.at, wrong(`write at least one, such as retry = ["15m"]`, "retry is empty, and so nothing would ever be tried again"))
	}
	early, named := one(s, "notify_people_after", &q.NotifyAfter, readDelay)
	at, _ := one(s, "warn_after", &q.WarnAfter, readDuration)
	end, given := one(s, "give_up_after", &q.GiveUpAfter, readDuration)
	if q.WarnAfter >= q.GiveUpAfter {
		if given {
			at = end
		}
		r.complain(at, wrong("warn_after must be shorter than give_up_after",
			"a letter would be given up after %s, before its writer is warned after %s", inWords(q.GiveUpAfter), inWords(q.WarnAfter)))
	}
	if named && q.NotifyAfter >= q.WarnAfter {
		r.complain(early, wrong("notify_people_after must be shorter than warn_after, or \"off\"",
			"everybody is warned after %s, and so your people would never be told after %s", inWords(q.WarnAfter), inWords(q.NotifyAfter)))
	}
	for _, wait := range retry {
		if wait.what >= q.GiveUpAfter {
			r.complain(wait.at, wrong("", "a letter is given up after %s, before this wait of %s is over", inWords(q.GiveUpAfter), inWords(wait.what)))
		}
	}
}

func (r *reader) outbound(s section, o *Outbound) {
	total, _ := one(s, "concurrency", &o.Concurrency, readCount(1, 10_000))
	at, given := one(s, "per_destination", &o.PerDestination, readCount(1, 10_000))
	switch {
	case given && o.PerDestination > o.Concurrency:
		r.complain(at, wrong("", "per_destination is %d, more than concurrency, which is %d", o.PerDestination, o.Concurrency))
	case o.PerDestination > o.Concurrency:
		r.warn(total, "", "per_destination is lowered to %d as well", o.Concurrency)
		o.PerDestination = o.Concurrency
	}
	one(s, "port", &o.Port, readPort)
	one(s, "source_ipv4", &o.SourceIPv4, readSource(false))
	one(s, "source_ipv6", &o.SourceIPv6, readSource(true))
	one(s, "allow_loopback", &o.AllowLoopback, readBool)
	r.outboundLimits(s, o)
	one(s, "tls_reports", &o.TLSReports, readBool)
}

// levels of the log, by the words of the file.
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func (r *reader) log(s section, l *Log) {
	one(s, "format", &l.Format, readWord(LogText, LogJSON))
	level := "info"
	one(s, "level", &level, readWord("debug", "info", "warn", "error"))
	l.Level = levels[level]
}

// routes reads the [[route]] tables in their order.
func (r *reader) routes(s section, c *Config) {
	seen := map[string]bool{}
	tables(s, "route", c, func(t section, c *Config) { r.route(t, c, seen) })
}

func (r *reader) uselessPattern(p placed[string], c *Config, seen map[string]bool) {
	_, ours := c.Domains[relay.Domain(p.what)]
	switch {
	case ours:
		r.warn(p.at, "", "mail for %s is delivered here, so this route will not be taken", p.what)
	case seen[p.what], seen["*"]:
		r.warn(p.at, "the first route that matches wins", "an earlier route takes all mail for %q, so this one will not be taken", p.what)
	}
}

// listen reads the listeners and refuses addresses that would be in each other's way. devices says
// that there are listeners in other tables too.
func (r *reader) listen(s section, c *Config, devices bool) (taken []listener) {
	for _, service := range []struct {
		name string
		dst  *[]string
	}{
		{"smtp", &c.Listen.SMTP}, {"submission", &c.Listen.Submission}, {"submissions", &c.Listen.Submissions},
		{"pop3", &c.Listen.POP3}, {"pop3s", &c.Listen.POP3S}, {"metrics", &c.Listen.Metrics},
		{"http", &c.Listen.HTTP}, {"https", &c.Listen.HTTPS},
	} {
		addresses, _ := many(s, service.name, readListen)
		for _, a := range addresses {
			r.collision(a, service.name, taken)
			taken = append(taken, listener{a.what, service.name})
			*service.dst = append(*service.dst, a.what.text)
		}
	}
	if len(taken) == 0 && !devices {
		r.warn(s.t.at, `add to [listen] a line such as smtp = ":25"`, "no service listens anywhere")
	}
	return taken
}

type listener struct {
	hostPort
	service string
}

// everywhere says whether a listener takes all addresses of the machine. Go opens 0.0.0.0 and
// [::] for both families alike.
func (hp hostPort) everywhere() bool {
	addr, err := netip.ParseAddr(hp.host)
	return hp.host == "" || err == nil && addr.IsUnspecified()
}

func (r *reader) collision(a placed[hostPort], service string, taken []listener) {
	for _, t := range taken {
		if a.what.port == 0 || a.what.port != t.port {
			continue
		}
		switch {
		case a.what.host == t.host:
			r.complain(a.at, wrong("", "%q is already taken by %s", a.what.text, t.service))
			return
		case a.what.everywhere() || t.everywhere():
			r.complain(a.at, wrong("an address without a host listens on all addresses, IPv4 and IPv6",
				"%q for %s is in the way of %q for %s", a.what.text, service, t.text, t.service))
			return
		}
	}
}

// outboundLimits reads the [[outbound.limit]] tables.
func (r *reader) outboundLimits(s section, o *Outbound) { tables(s, "limit", o, r.outboundLimit) }

// outboundLimit reads one; without an Outbound it only makes the names known.
func (r *reader) outboundLimit(s section, o *Outbound) {
	var got OutboundLimit
	to, hasTo := many(s, "to", readPattern)
	mx, hasMX := many(s, "mx", readHostPattern)
	one(s, "messages_per_minute", &got.PerMinute, readCount(1, 100_000))
	one(s, "concurrency", &got.Concurrency, readCount(1, 10_000))
	switch {
	case o == nil:
		return
	case !hasTo && !hasMX:
		r.complain(s.t.at, wrong(`add mx = "*.mail.protection.outlook.com", or to = "partner.example"`, "this limit does not say whom it is for"))
	case s.t.get("messages_per_minute") == nil && s.t.get("concurrency") == nil:
		r.complain(s.t.at, wrong("add messages_per_minute = 30, or concurrency = 2", "this limit bounds nothing"))
	}
	for _, list := range []string{"to", "mx"} {
		if e := s.t.get(list); e != nil && e.val.kind == kindList && len(e.val.items) == 0 {
			r.complain(e.at, wrong("leave the line out", "%s is empty", list))
		}
	}
	got.To, got.MX = whats(to), whats(mx)
	o.Limits = append(o.Limits, got)
}
