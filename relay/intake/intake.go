package intake

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"relayd/relay"
	"relayd/relay/dmarc"
	"relayd/relay/gate"
)

// Limits bounds what the front door takes.
type Limits struct {
	ReceivedFields int   // more Received fields than this are a loop
	MinFreeDisk    int64 // octets; with less left, MAIL is refused with 452 4.3.1
}

// Settings is everything a reload may change.
type Settings struct {
	Directory  *Directory
	Limits     Limits
	HideClient bool // Received does not tell the address of a client of our own people
	// Devices are the device listeners by their service.
	Devices map[string]Device
	// Routed says whether the mail of a domain takes a route of the config, whatever the DNS says
	// of it; nil: none does.
	Routed func(relay.Domain) bool
	Policy Policy
	// Filters are asked about letters that have come in whole; nil: there are none.
	Filters Filters
	// JunkScore is from which score of the spam filter on the copy of a mailbox goes into its folder
	// Junk; ok: it has a threshold of its own. nil: none has.
	JunkScore func(mailbox relay.Address) (score float64, ok bool)
}

// Intake implements relay.Acceptor for relay/smtpd and relay.Submitter for delivery.
type Intake struct {
	local, foreign relay.Stager
	signer         Signer
	disk           *disk
	log            *slog.Logger
	settings       atomic.Pointer[Settings]
	buffers, held  sync.Pool
	large          chan struct{} // one for each header that has outgrown its buffer
	step           func(name string)

	dns     relay.Resolver
	suggest func(relay.Domain) (relay.Domain, bool)
	quota   Quota
	gate    *gate.Gate
	closed  func() bool
	asText  func(body io.ReadSeeker) (write func(io.Writer) error, err error)
	asker   Asker
	success func(ctx context.Context, env relay.Envelope, head []byte)
	observe func(dmarc.Observation)
	lookups chan struct{} // one for each domain being asked about
}

// Options are what an Intake is made of.
type Options struct {
	Local, Foreign relay.Stager // the maildirs and the queue
	DataDir        string       // whose free space is watched
	// Signer signs what our own people and we send elsewhere; nil: nothing is signed.
	Signer Signer
	Log    *slog.Logger
	Step   func(name string) // told what is done of an accept; tests crash there, nil elsewhere

	// DNS is asked whether the domains our own people write to exist; nil: nobody is.
	DNS relay.Resolver
	// Suggest names the domain that was meant by one that does not exist; may be nil.
	Suggest func(relay.Domain) (relay.Domain, bool)
	// Quota bounds what each login may send elsewhere; nil: nothing does.
	Quota Quota
	// Asker knows who has a mailbox in domains that others keep, and is needed where Known.Ask is set.
	Asker Asker
	// Gate weighs strangers; nil: nobody does.
	Gate *gate.Gate
	// AsText says how a binary letter (RFC 3030) is written as text; nil: it is refused. Its errors are
	// *relay.Failure, or of reading.
	AsText func(body io.ReadSeeker) (write func(io.Writer) error, err error)
	// Closed says whether the operator lets the front door rest; nil: never.
	Closed func() bool
	// Success is told, before the client hears its 250, of a letter that lies in mailboxes here and
	// whose sender wants to know (RFC 3461 §4.1): env.Rcpts are those he asked about, head is the
	// beginning of the letter. nil: nobody is.
	Success func(ctx context.Context, env relay.Envelope, head []byte)
	// Observe is told of each stranger's letter whose domain asks for reports about it, after its fate
	// is decided, and must not wait; nil: nobody is.
	Observe func(dmarc.Observation)
}

// New makes an Intake. It is ready when Set has been called once.
func New(o Options) *Intake {
	if o.Step == nil {
		o.Step = func(string) {}
	}
	return &Intake{
		local: o.Local, foreign: o.Foreign, signer: o.Signer, disk: &disk{path: o.DataDir}, step: o.Step,
		log:     o.Log.With("room", "intake"),
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, bufferSize); return &b }},
		held:    sync.Pool{New: func() any { b := make([]byte, 0, heldSize); return &b }},
		large:   make(chan struct{}, largeHeaders),
		observe: o.Observe,
		asText:  o.AsText,
		dns:     o.DNS, suggest: o.Suggest, quota: o.Quota, gate: o.Gate, closed: o.Closed, asker: o.Asker, success: o.Success, lookups: make(chan struct{}, maxLookups),
	}
}

const (
	// bufferSize is what a transaction holds while it receives.
	bufferSize = 32 << 10
	// largeHeaders is how many transactions at a time may hold up to maxHeader.
	largeHeaders = 16
)

// Set puts new settings in force for transactions that begin from now on.
func (in *Intake) Set(s Settings) { in.settings.Store(&s) }

// Begin implements relay.Acceptor. It refuses with 451 4.3.2 while the operator lets the door rest, 530 5.7.0 on the submission ports before a
// login, with 550 5.7.1 a sender that is not the login's own, and with 452 4.3.1 while the disk
// is nearly full.
func (in *Intake) Begin(_ context.Context, o relay.Origin, from relay.Address, p relay.MailParams) (relay.Transaction, error) {
	s := in.settings.Load()
	o.Trusted = s.Directory.Trusts(o.Client.Addr())
	if in.closed != nil && in.closed() {
		err := relay.Refuse("intake: begin", 451, "4.3.2", "we take no mail just now, please try again later")
		in.begin(s, relay.Envelope{From: from, Origin: o}).refused(err, relay.Address{})
		return nil, err
	}
	if d := s.device(o); d != nil {
		if err := d.begin(&o, &from); err != nil {
			in.begin(s, relay.Envelope{From: from, Origin: o}).refused(err, relay.Address{})
			return nil, err
		}
	}
	if strings.HasPrefix(o.Service, "submission") && !s.Directory.mayRelay(o) {
		err := relay.Refuse("intake: begin", 530, "5.7.0", "log in first")
		in.begin(s, relay.Envelope{From: from, Origin: o}).refused(err, relay.Address{})
		return nil, err
	}
	if err := s.checkSender(o, from); err != nil {
		in.begin(s, relay.Envelope{From: from, Origin: o}).refused(err, relay.Address{})
		return nil, err
	}
	if err := in.checkDisk(s, o, from, p.Size); err != nil {
		return nil, err
	}
	t := in.begin(s, relay.Envelope{From: from, Origin: o, UTF8: p.UTF8, Ret: p.Ret, EnvID: p.EnvID, RequireTLS: p.RequireTLS, Release: p.Release, By: p.By})
	t.binary = p.Binary
	if err := t.knock(); err != nil {
		t.refused(err, relay.Address{})
		return nil, err
	}
	return t, nil
}

// checkDisk refuses with 452 4.3.1 a letter there may be no room for.
func (in *Intake) checkDisk(s *Settings, o relay.Origin, from relay.Address, size int64) error {
	err := in.disk.check(s.Limits.MinFreeDisk + size)
	if err == nil {
		return nil
	}
	in.log.Error("refused", "client", o.Client, "from", from, "code", 452, "err", err)
	return relay.Fail("intake: begin", relay.ScopeMessage,
		relay.Reply{Code: 452, Status: relay.Status{4, 3, 1}, Text: "our disk is full, please try again later"}, err)
}

// Verify implements relay.Acceptor.
func (in *Intake) Verify(_ context.Context, o relay.Origin, addr relay.Address) error {
	o.Trusted, o.User = false, "" // a foreign address is not ours to confirm, whoever asks
	dir := in.settings.Load().Directory
	if _, err := dir.Classify(o, addr); err != nil {
		return err
	}
	if dir.unsure(o, addr) {
		return relay.Refuse("intake: verify", 252, "2.1.5", "cannot say, send some mail and see")
	}
	return nil
}

// Submit implements relay.Submitter: a letter of our own, trusted to go anywhere. A permanent
// *relay.Failure says that its recipient does not exist here.
func (in *Intake) Submit(ctx context.Context, env relay.Envelope, body io.Reader) error {
	rcpts := env.Rcpts
	env.Rcpts, env.Origin.Trusted = nil, true
	t := in.begin(in.settings.Load(), env)
	defer t.Abort()
	for _, r := range rcpts {
		if err := t.Rcpt(ctx, r.Addr, relay.RcptParams{Notify: r.Notify, ORcpt: r.ORcpt}); err != nil {
			return fmt.Errorf("intake: submit: %w", err)
		}
	}
	_, err := t.Receive(ctx, body)
	return err
}

// begin starts a transaction; whether it may was decided before.
func (in *Intake) begin(s *Settings, env relay.Envelope) *transaction {
	return &transaction{in: in, settings: s, env: env}
}
