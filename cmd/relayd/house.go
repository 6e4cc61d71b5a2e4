package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"relayd/config"
	"relayd/delivery"
	"relayd/delivery/maildir"
	"relayd/delivery/mtasts"
	"relayd/delivery/mx"
	"relayd/delivery/tlsrpt"
	"relayd/pop3"
	"relayd/queue"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/autoconfig"
	"relayd/relay/callout"
	"relayd/relay/certs"
	"relayd/relay/dmarc"
	"relayd/relay/drop"
	"relayd/relay/durable"
	"relayd/relay/filter"
	"relayd/relay/gate"
	"relayd/relay/intake"
	"relayd/relay/known"
	"relayd/relay/orders"
	"relayd/relay/policy"
	"relayd/relay/quota"
	"relayd/relay/resolver"
	"relayd/relay/smtpd"
	"relayd/relay/users"
)

// house holds the rooms of a relayd. build makes them from the bottom up and close ends them in
// reverse; serve runs those that wait for somebody.
type house struct {
	load func() (*config.Config, error) // reads the configuration again
	cfg  atomic.Pointer[config.Config]

	log     *slog.Logger
	level   *slog.LevelVar
	metrics *admin.Metrics

	users     *users.Store
	certs     *certs.Source
	dns       *resolver.Resolver
	known     *known.Memory
	gate      *gate.Gate
	secured   *known.Memory // mail hosts that had TLS
	policies  *mtasts.Store
	reports   *tlsrpt.Store // on TLS, to other domains
	quota     *quota.Ledger
	orders    *orders.Book
	keys      *policy.Keys
	gathered  *dmarc.Ledger
	feedback  *dmarc.Sender
	fresh     *resolver.Resolver // without a cache
	queue     *queue.Queue
	filters   *filter.Chain
	mail      relay.Stager // the maildirs
	intake    *intake.Intake
	client    *mx.Client
	drain     *delivery.Drain
	rescues   rescues
	callout   *callout.Memory          // who has a mailbox at servers behind us
	smtp      map[string]*smtpd.Server // by service
	devices   *smtpd.Devices
	pop3      map[string]*pop3.Server
	admin     *admin.Server
	listeners []listener

	reloading sync.Mutex
	closers   []func() error
}

func (h *house) config() *config.Config { return h.cfg.Load() }

// step is told what has just been done of a letter's accept, attempt, settling or report. Nothing
// in the program sets it: tests do, to end the process there.
var step func(name string)

// build makes every room and opens every listener, so that whatever can go wrong does so before
// the first client is greeted.
func build(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), stderr io.Writer) (h *house, err error) {
	h = &house{load: load, level: &slog.LevelVar{}, metrics: admin.NewMetrics()}
	h.cfg.Store(cfg)
	h.level.Set(cfg.Log.Level)
	h.log = newLogger(cfg.Log.Format, h.level, h.metrics, stderr)
	defer func() {
		if err != nil {
			h.close()
			h = nil
		}
	}()
	for _, step := range []func(context.Context, *config.Config) error{
		h.buildData, h.buildMail, h.buildDelivery, h.buildServers, h.buildAdmin,
	} {
		if err := step(ctx, cfg); err != nil {
			return h, err
		}
	}
	return h, nil
}

func newLogger(format string, level *slog.LevelVar, metrics *admin.Metrics, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, o)
	if format == config.LogJSON {
		handler = slog.NewJSONHandler(w, o)
	}
	return slog.New(metrics.Handler(handler))
}

// later remembers what close has to end.
func (h *house) later(f func() error) { h.closers = append(h.closers, f) }

// close ends the rooms in reverse order of their making.
func (h *house) close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

func (h *house) buildData(_ context.Context, cfg *config.Config) (err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if err := drop.MakeDir(cfg.DropDir); err != nil {
		return fmt.Errorf("drop_dir: %w", err)
	}
	if h.users, err = users.Open(filepath.Join(cfg.DataDir, "users"), users.WithLog(h.log), users.WithTrusted(h.ours)); err != nil {
		return err
	}
	if h.dns, err = resolver.New(cfg.DNSServers, resolver.TrustAD(cfg.TrustAD)); err != nil {
		return err
	}
	h.later(h.dns.Close)
	if err := h.openKeys(cfg); err != nil {
		return err
	}
	h.known = known.Open(filepath.Join(cfg.DataDir, "domains"), h.log)
	h.later(h.known.Close)
	h.openGate(cfg)
	h.secured = known.Open(filepath.Join(cfg.DataDir, "tls-hosts"), h.log)
	h.later(h.secured.Close)
	if h.quota, err = quota.Open(filepath.Join(cfg.DataDir, "quota"), h.log); err != nil {
		return err
	}
	h.later(h.quota.Close)
	if h.orders, err = orders.Open(filepath.Join(cfg.DataDir, "orders"), h.log); err != nil {
		return err
	}
	h.gathered = dmarc.Open(filepath.Join(cfg.DataDir, "dmarc-reports"), h.log)
	h.later(h.gathered.Close)
	o := certificates(cfg)
	o.Log, o.Visitors = h.log, mtasts.Handler(h.ownPolicy, autoconfig.Handler(h.clientSettings))
	h.certs, err = certs.New(o)
	return err
}

// buildMail opens where letters lie. The maildirs and the queue share one Flusher, and thereby
// the flushes of their file system.
func (h *house) buildMail(ctx context.Context, cfg *config.Config) error {
	flush, err := durable.NewFlusher(cfg.DataDir)
	if err != nil {
		return err
	}
	h.later(flush.Close)
	mail, err := maildir.Open(filepath.Join(cfg.DataDir, "mail"), string(cfg.Hostname), flush, h.log,
		maildir.WithUndelete(cfg.POP3.Undelete), maildir.WithAlarm(h.warnOfEmptying), maildir.WithJunk(h.showsJunk))
	if err != nil {
		return err
	}
	h.later(mail.Close)
	h.mail = mail
	if step != nil {
		mail.SetStep(step)
	}
	h.queue, err = queue.Open(filepath.Join(cfg.DataDir, "queue"),
		queue.Options{Hold: h.holdNew, Lost: h.lost, Schedule: schedule(cfg), Flush: flush, Log: h.log, Step: step})
	if err != nil {
		return err
	}
	h.later(h.queue.Close)
	h.callout = callout.Open(filepath.Join(cfg.DataDir, "callouts"), h.ask, h.log)
	h.later(h.callout.Close)
	h.intake = intake.New(intake.Options{
		Signer: signer{h.keys},
		Local:  mail, Foreign: h.queue, DataDir: cfg.DataDir, Log: h.log, Step: step, DNS: h.dns, Suggest: h.suggest,
		Asker:  h.callout,
		AsText: mx.AsText,
		Closed: func() bool { return h.orders.Rests(orders.Inbound) },
		Quota:  fuse{h}, Success: h.reportDelivered, Observe: h.observe, Gate: h.gate,
	})
	h.feedback = h.dmarcSender(cfg)
	h.pop3 = h.popServers(cfg, mail)
	h.filters = filter.New(cfg.Hostname, h.log)
	h.metrics.Filters(h.shownFilters)
	h.setIntake(cfg)
	return nil
}

func (h *house) buildDelivery(_ context.Context, cfg *config.Config) error {
	paths, err := routes(cfg)
	if err != nil {
		return err
	}
	h.smtp = h.smtpServers(cfg, h.dns)
	h.rescues = newRescues(cfg.DataDir)
	h.policies = mtasts.Open(mtasts.Options{
		Path: filepath.Join(cfg.DataDir, "mta-sts"), Resolver: h.dns, AllowLoopback: cfg.Outbound.AllowLoopback, Log: h.log,
	})
	h.later(h.policies.Close)
	h.openReports(cfg)
	h.client = mx.New(mx.Config{
		Hostname: cfg.Hostname, Resolver: h.dns, Port: int(cfg.Outbound.Port), AllowLoopback: cfg.Outbound.AllowLoopback,
		Backup:   h.isBackup,
		SelfName: h.isSelfName, SelfAddr: h.isSelfAddr, LocalAddr: h.localAddr, Source: h.sourceAddr, Routes: paths, Offered: h.secured, Policies: h.policies,
		Secure: h.dns, Sessions: h.noteSession(cfg),
		Rescued: h.rescues.note, Log: h.log,
	})
	h.later(h.client.Close)
	h.drain = delivery.New(delivery.Options{
		Paused: h.orders.Paused, Queue: h.queue, Deliverer: mailboxes{remembering{homecoming{h.client, h}, h.known, h.routed}, h.mail}, Submit: h.intake, Hostname: cfg.Hostname,
		Schedule: func() queue.Schedule { return schedule(h.config()) }, Local: h.isLocal, Language: h.language, Log: h.log,
		Reach:   h.reach,
		Outages: filepath.Join(cfg.DataDir, "outages"), Proven: h.proven, Revive: h.client.Revive,
		Inner: h.isInner, Limits: outboundLimits(cfg), Hosts: h.client.Hosts,
		Total: cfg.Outbound.Concurrency, PerDestination: cfg.Outbound.PerDestination, Grace: stopGrace, Step: step,
	})
	return nil
}

func (h *house) buildServers(ctx context.Context, cfg *config.Config) (err error) {
	if h.listeners, err = listen(ctx, cfg.Listen); err != nil {
		return err
	}
	h.later(func() error {
		for _, l := range h.listeners {
			l.Close()
		}
		return nil
	})
	return nil
}

func (h *house) buildAdmin(_ context.Context, cfg *config.Config) error {
	socket, err := admin.Listen(cfg.DataDir)
	if err != nil {
		return err
	}
	h.listeners = append(h.listeners, listener{controlService, socket})
	h.metrics.Queue(func() (messages, held int) { s := h.queue.Stats(); return s.Letters, s.Held })
	h.metrics.Certificates(h.shownCertificates)
	h.metrics.Disk(cfg.DataDir)
	h.metrics.Gate(h.shownGate)
	h.admin = admin.NewServer(admin.Config{
		DataDir: cfg.DataDir, Queue: reviving{h.queue, h.client.Revive}, Bouncer: h.drain, Logins: logins{h.users}, Holds: fuse{h}, Orders: h.orders, Stage: h.queue, IsLocal: h.isHere, Busy: h.drain.Busy, Waits: h.drain.Waits, CheckVia: checkVia, Lost: h.lost, Devices: h.seenDevices, Submit: h.submitLocal,
		Metrics: h.metrics, About: h.about, Setup: autoconfig.Handler(h.clientSettings),
		Reload: h.reload, Log: h.log.With("room", "admin"),
		Keys: keyring{h}, Records: h.checkRecords, TLSReports: tlsReports{h}, Reports: reporter{h}, Gate: h.shownGate,
	})
	return nil
}

func (h *house) about() admin.About {
	cfg := h.config()
	a := admin.About{
		Version: version(), Hostname: string(cfg.Hostname), Config: cfg.Path, MinFreeDisk: minFree(cfg),
		Certificates: h.shownCertificates(), Warnings: append(h.signingWarnings(), h.gateWarnings()...), Filters: h.shownFilters(), LineDown: h.drain.LineDown(),
	}
	for _, l := range h.listeners {
		if l.service != controlService {
			a.Listeners = append(a.Listeners, admin.Address{Service: l.service, Address: l.Addr().String()})
		}
	}
	return a
}

func schedule(cfg *config.Config) queue.Schedule {
	s := queue.Schedule{Retry: cfg.Queue.Retry, NotifyAfter: cfg.Queue.NotifyAfter, WarnAfter: cfg.Queue.WarnAfter, GiveUpAfter: cfg.Queue.GiveUpAfter}
	for d, domain := range cfg.RelayDomains {
		s = s.Except(d, domain.GiveUpAfter)
	}
	return s
}

// minFree is the free space, in octets, below which no mail is accepted.
func minFree(cfg *config.Config) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(cfg.DataDir, &st); err != nil {
		return cfg.Limits.MinFreeDisk.Bytes
	}
	return cfg.Limits.MinFreeDisk.Of(int64(st.Blocks) * st.Bsize)
}

// lost is how much of a letter's age our line was down.
func (h *house) lost(born, now time.Time) time.Duration {
	if h.drain == nil { // nothing has been sent yet
		return 0
	}
	return h.drain.Lost(born, now)
}

// holdNew says by which of the operator's rules an item is held.
func (h *house) holdNew(it *queue.Item) string {
	return h.orders.Hold(it.From, it.Domain, it.Rcpts)
}

// setIntake puts the config's domains and limits in force at the front door.
func (h *house) setIntake(cfg *config.Config) {
	h.filters.Set(filterPrograms(cfg))
	h.intake.Set(intake.Settings{
		Directory:  directory(cfg, h.users),
		Limits:     intake.Limits{ReceivedFields: cfg.Limits.ReceivedFields, MinFreeDisk: minFree(cfg)},
		HideClient: cfg.Submission.HideClient,
		Devices:    deviceRules(cfg),
		Policy:     policyRules(cfg),
		Filters:    h.filters,
		JunkScore:  junkScores(cfg),
		Routed:     func(d relay.Domain) bool { return hasRoute(cfg, d) },
	})
}

func directory(cfg *config.Config, people intake.Users) *intake.Directory {
	d := &intake.Directory{
		Hostname: cfg.Hostname, Default: cfg.DefaultDomain, Domains: map[relay.Domain]intake.Domain{},
		Trusted: cfg.TrustNetworks, Delimiter: cfg.SMTP.RecipientDelimiter, Users: people,
		Grants: map[relay.Address]intake.Grant{}, Backups: map[relay.Domain]intake.Known{},
	}
	for name, user := range cfg.Users {
		d.Grants[name] = intake.Grant{Any: user.SendAsAny, Addresses: user.SendAs}
	}
	for name, domain := range cfg.Domains {
		d.Domains[name] = intake.Domain{Postmaster: domain.Postmaster, Aliases: domain.Aliases,
			Elsewhere: domain.Server != config.Server{}, Known: knownOf(domain.Known)}
	}
	for name, domain := range cfg.RelayDomains {
		d.Backups[name] = knownOf(domain.Known)
	}
	return d
}

// trusted says whether a client may relay without a login, by today's config.
func (h *house) trusted(client netip.Addr) bool {
	return (&intake.Directory{Trusted: h.config().TrustNetworks}).Trusts(client)
}
