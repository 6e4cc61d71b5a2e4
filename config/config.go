// Package config turns the TOML file into checked values. cmd/relayd and cmd/relayctl hand it
// the file's name; what comes back needs no further checking. Every complaint says file, line
// and column, shows the line and suggests what was probably meant, and all complaints come at
// once: nobody should have to start the server five times to find five slips.
//
// The file is read in three steps. document.go makes a tree of values that remember where they
// stand; section.go takes values out of tables by name and notes the names nobody asked for; the
// read* functions are the grammar, one for each table, and the checks across tables.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"relayd/relay"
)

// DefaultPath is where both programs look for the file when --config does not name one.
const DefaultPath = "/etc/relayd/relayd.toml"

// DropName is where DropDir lies in DataDir unless the file says otherwise.
const DropName = "drop"

// MaxFileSize bounds the file: anything larger is not a configuration of ours.
const MaxFileSize = 1 << 20

// Config is the whole configuration, checked. A Config is never changed after it was read, so
// many goroutines may share it; a reload makes a new one.
type Config struct {
	Path     string       // the file it was read from; empty for Default and Dev
	Hostname relay.Domain // how we greet; a name, never an address literal
	DataDir  string       // absolute: mail/, queue/, keys/, users, control.sock
	DropDir  string       // absolute: where programs leave letters; DataDir/drop unless the file says otherwise
	Listen   Listen
	Domains  map[relay.Domain]DomainConfig // mail for these is delivered here
	// DefaultDomain is the first of them in the file; empty without any. Its postmaster answers
	// RCPT TO:<postmaster> (RFC 5321 §4.5.1).
	DefaultDomain relay.Domain
	// RelayDomains are kept by others; we are their backup MX.
	RelayDomains map[relay.Domain]RelayDomain

	// Users has what the file says of single users, by address in the form of NormalizeLocal. Who
	// is a user stands in the users file.
	Users map[relay.Address]UserConfig

	Devices []Device // by Listen.Devices

	TrustNetworks   []netip.Prefix   // may relay without AUTH, masked, IPv4 never mapped into IPv6
	TLSCert, TLSKey string           // absolute paths of PEM files, the default pair; or both empty
	TLSPairs        []TLSPair        // more of them, chosen by the name a client asks for
	ACME            ACME             // certificates from an authority
	DNSServers      []netip.AddrPort // empty: /etc/resolv.conf
	TrustAD         bool             // believe their word that DNSSEC vouches, wherever they are

	Limits     Limits
	Queue      Queue
	Outbound   Outbound
	SMTP       SMTP
	Submission Submission
	Policy     Policy
	Gate       Gate
	Filters    []Filter // rspamd, clamd, the milters in the order of the file
	POP3       POP3
	Log        Log
	Routes     []Route // the first match wins; none: the MX records

	// Warnings are about what is allowed and yet probably not meant.
	Warnings []Complaint
}

// Listen holds the addresses each service listens on, host:port with an empty host for all of
// the machine's addresses; a service without any is off. Port 0 asks the kernel for a free one.
type Listen struct {
	SMTP        []string // the world's mail
	Submission  []string // our people, STARTTLS then AUTH
	Submissions []string // our people, TLS from the first byte
	POP3        []string
	POP3S       []string
	Metrics     []string
	HTTP        []string // challenges of ACME: the authority knocks at port 80
	HTTPS       []string // or at port 443
	Devices     []ListenDevice
}

// TLSPair is a certificate chain and its key, absolute paths of PEM files.
type TLSPair struct{ Cert, Key string }

// ACME says which certificate authority to ask, and for what (RFC 8555).
type ACME struct {
	On        bool
	Directory string         // the https URL of its directory
	Email     string         // where it may write to; may be empty
	Names     []relay.Domain // beside Hostname
}

// DomainConfig is one domain whose mail is delivered here.
type DomainConfig struct {
	// Postmaster is the address, ours or foreign, that reads postmaster@ this domain (RFC 5321
	// §4.5.1), as Address.String writes it. An alias called postmaster comes before it.
	Postmaster string
	// Aliases leads from a local part, in the form of NormalizeLocal, to the addresses its mail
	// goes to, as Address.String writes them: always with a domain, nested aliases unresolved,
	// free of loops. An alias that names itself beside others means the mailbox of its name.
	Aliases map[string][]string
	// Language is that of the reports its people get: en, de, fr or es; empty: English.
	Language string
	// STS is the mode of the MTA-STS policy that is served for the domain at https://mta-sts.DOMAIN;
	// empty: none is.
	STS relay.STSMode
	// STSHosts are mail hosts of the domain beside Hostname.
	STSHosts []relay.Domain
	// Server keeps its mail in place of the maildirs here, and Known says for whom.
	Server Server
	Known  Known
}

// UserConfig says what one user may do.
type UserConfig struct {
	// SendAs are addresses the user may send as beside its own; the local part "*" stands for
	// everybody of a domain.
	SendAs    []relay.Address
	SendAsAny bool // as anybody at all

	JunkInPOP3 bool // shows the letters in its folder Junk too
	// JunkScore is from which score of rspamd on its copies go into the folder Junk; nil: rspamd says.
	JunkScore *float64

	RecipientsHour int // instead of Limits.UserRecipientsHour; 0: that
	RecipientsDay  int
}

// Limits bound what one stranger, or all of them together, may cost us. Everything is positive.
type Limits struct {
	MessageSize           int64         // octets of one letter, as sent
	Recipients            int           // of one letter
	CommandLine           int           // octets of one SMTP command with its CRLF; AUTH has its own (RFC 4954)
	Errors                int           // refused or wrong commands in one session, then 421
	Connections           int           // SMTP and submission together
	ConnectionsPerAddress int           // of those, from one IPv4 address or one IPv6 /64
	CommandTimeout        time.Duration // from our reply to the end of the next command (RFC 5321 §4.5.3.2.7: 5 min)
	DataTimeout           time.Duration // between two octets of a letter
	SessionTimeout        time.Duration // a whole SMTP session
	MinRate               int64         // octets a second a letter must keep up on average
	ReceivedFields        int           // more of them in one letter is a loop
	MinFreeDisk           DiskFloor     // less free space than this: no new mail, 452 4.3.1
	UserRecipientsHour    int           // elsewhere, of one login within an hour; its letters are held beyond
	UserRecipientsDay     int           // the same within a day
	POP3Connections       int
	POP3PerAddress        int
}

// DiskFloor is the free space below which no mail is accepted: a number of octets or, where
// Percent is not 0, a share of the file system.
type DiskFloor struct {
	Bytes   int64
	Percent float64
}

// Of is the floor in octets on a file system of total octets.
func (f DiskFloor) Of(total int64) int64 {
	if f.Percent > 0 {
		return int64(float64(total) * f.Percent / 100)
	}
	return f.Bytes
}

// Queue is the schedule of mail that could not be sent on at once.
type Queue struct {
	Retry       []time.Duration // waits between attempts; the last one repeats. Never empty.
	NotifyAfter time.Duration   // our own people are told so, earlier; 0: with everybody
	WarnAfter   time.Duration   // the writer is told that the letter is late
	GiveUpAfter time.Duration   // the letter is returned; longer than WarnAfter
}

// Outbound says how mail leaves.
type Outbound struct {
	Concurrency    int        // attempts at the same time
	PerDestination int        // of those, to one domain; at most Concurrency
	Port           uint16     // of the MX hosts: 25, except in tests
	SourceIPv4     netip.Addr // connect from this address; zero: the kernel chooses
	SourceIPv6     netip.Addr
	Limits         []OutboundLimit
	AllowLoopback  bool // deliver to MX hosts at 127.0.0.0/8 and ::1; off, because such an MX is a loop or a trap
	TLSReports     bool // tell domains that ask for it how TLS with their hosts went (RFC 8460)
}

// OutboundLimit bounds what some destinations get, all of them together.
type OutboundLimit struct {
	To          []string // domains, "*.example" for every name below one, "*" for all
	MX          []string // or names or patterns of a most preferred mail host
	PerMinute   int      // letters; 0: no bound
	Concurrency int      // attempts at the same time; 0: no bound
}

// The values of SMTP.BareNewline.
const (
	RejectBareNewline    = "reject"
	NormalizeBareNewline = "normalize"
)

// SMTP says how the SMTP listeners behave.
type SMTP struct {
	BareNewline        string // RejectBareNewline or NormalizeBareNewline; bare ones are never passed on
	RecipientDelimiter string // one character, or empty: ann+tag is ann
}

// Submission says how letters of our own people are taken.
type Submission struct {
	HideClient    bool // Received does not tell the writer's address
	PlaintextAuth bool // clients in TrustNetworks may log in without TLS
}

// The values of Policy.Mode.
const (
	PolicyOff     = "off"
	PolicyObserve = "observe"
	PolicyEnforce = "enforce"
)

// Policy says what follows when a stranger's letter is not proven to be its author's.
type Policy struct {
	Mode string
	// Except are senders that nothing follows for: domains, "*.example" for every name below one,
	// and addresses in the form of NormalizeLocal.
	Except      []string
	ReceivedSPF bool // strangers' letters get a field Received-SPF too
	// AggregateReports says whether domains that ask for it get a daily report of what was found
	// about letters in their name (RFC 9990).
	AggregateReports bool
	// ReportMailboxes are where others' reports about our domains arrive; none: the postmasters'.
	ReportMailboxes []relay.Address
}

// POP3 says how the POP3 listeners behave.
type POP3 struct {
	IdleTimeout time.Duration // RFC 1939 §3 wants 10 minutes or more
	LoginDelay  time.Duration // between two logins to a mailbox (RFC 2449 §6.5); 0: none
	Undelete    time.Duration // for how long removed letters are kept; 0: not at all
	Language    string        // of a client that asks for LANG *: en, de, fr, es or ja (RFC 6856 §3)

	PlaintextAuth bool // clients in TrustNetworks may log in without TLS
}

// The values of Log.Format.
const (
	LogText = "text"
	LogJSON = "json"
)

// Log says how and how much is logged.
type Log struct {
	Format string // LogText or LogJSON
	Level  slog.Level
}

// Default is what holds where the file says nothing. It has no hostname, domains or listeners.
func Default() *Config {
	return &Config{
		DataDir: "/var/lib/relayd",
		DropDir: "/var/lib/relayd/" + DropName,
		Domains: map[relay.Domain]DomainConfig{}, RelayDomains: map[relay.Domain]RelayDomain{},
		Users: map[relay.Address]UserConfig{},
		Limits: Limits{
			MessageSize:           50_000_000,
			Recipients:            1000,
			CommandLine:           2048,
			Errors:                20,
			Connections:           1000,
			ConnectionsPerAddress: 50,
			CommandTimeout:        5 * time.Minute,
			DataTimeout:           5 * time.Minute,
			SessionTimeout:        4 * time.Hour,
			MinRate:               500,
			ReceivedFields:        100,
			MinFreeDisk:           DiskFloor{Bytes: 250_000_000},
			UserRecipientsHour:    500,
			UserRecipientsDay:     2000,
			POP3Connections:       1000,
			POP3PerAddress:        50,
		},
		Queue: Queue{
			Retry: []time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
				time.Hour, 2 * time.Hour, 4 * time.Hour},
			NotifyAfter: 15 * time.Minute,
			WarnAfter:   4 * time.Hour,
			GiveUpAfter: 5 * 24 * time.Hour,
		},
		ACME:     ACME{Directory: "https://acme-v02.api.letsencrypt.org/directory"},
		Outbound: Outbound{Concurrency: 100, PerDestination: 10, Port: 25, TLSReports: true},
		SMTP:     SMTP{BareNewline: RejectBareNewline, RecipientDelimiter: "+"},
		Policy:   Policy{Mode: PolicyEnforce, AggregateReports: true},
		Gate:     defaultGate(),
		POP3:     POP3{IdleTimeout: 10 * time.Minute, Undelete: 14 * 24 * time.Hour, Language: "en"},
		Log:      Log{Format: LogText, Level: slog.LevelInfo},
	}
}

// Dev is the development office that needs no file: loopback only, unprivileged ports, the
// domain office.test with the postmaster ann, and its data under dir.
func Dev(dir string) *Config {
	c := Default()
	c.Hostname = "mail.office.test"
	c.DataDir = absolute(".", dir)
	c.DropDir = filepath.Join(c.DataDir, DropName)
	c.Listen = Listen{
		SMTP:       []string{"127.0.0.1:2525"},
		Submission: []string{"127.0.0.1:2587"},
		POP3:       []string{"127.0.0.1:1100"},
	}
	c.Domains["office.test"] = DomainConfig{Postmaster: "ann@office.test", Aliases: map[string][]string{}}
	c.DefaultDomain = "office.test"
	c.TrustNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	c.Outbound.AllowLoopback = true
	return c
}

// Load reads and checks the file at path. Errors are *Invalid for what stands in the file, and
// what the operating system said, with a hint, for everything else.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// ErrNoFile is the error of Load when there is no file; it wraps fs.ErrNotExist.
var ErrNoFile = fmt.Errorf("there is no configuration file: %w", fs.ErrNotExist)

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w\nhint: name another with --config FILE, or try `relayd --dev`, which needs none", path, ErrNoFile)
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	// One octet more than allowed, so that Parse sees that it is too large.
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return data, nil
}

// absolute resolves a path of the file against the folder the file lies in, so that it means the
// same wherever the program is started from.
func absolute(folder, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(folder, path)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
