package admin

import (
	"fmt"
	"net/http"
	"time"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/orders"
)

// Item is one waiting letter to one domain, as the socket and `relayctl --json` show it. The names
// are stable: scripts of our users read them.
type Item struct {
	ID         relay.ID     `json:"id"`
	Domain     relay.Domain `json:"domain"`
	From       string       `json:"from"` // empty: the null path of a report
	To         []string     `json:"to"`   // who has not got it yet
	Size       int64        `json:"size"` // octets
	Accepted   time.Time    `json:"accepted"`
	Attempts   int          `json:"attempts"`
	Next       time.Time    `json:"next"` // of the next attempt, if it is not held
	Held       bool         `json:"held"`
	Via        string       `json:"via,omitempty"`        // where the operator sends it, whatever the routes say
	Hold       string       `json:"hold,omitempty"`       // why, where the sender wrote too many; an operator's hold has none
	Paused     bool         `json:"paused,omitempty"`     // sending to its domain is
	Waits      string       `json:"waits,omitempty"`      // it is due and not tried: why
	WaitsTill  time.Time    `json:"waits_until,omitzero"` // at least, where that is known
	Warned     bool         `json:"warned"`               // the sender has been told that it is late
	LastAnswer string       `json:"last_answer"`          // of the newest attempt, on one line; empty before the first
	Recipients []Recipient  `json:"recipients"`           // every one, those that are done too
	Origin     relay.Origin `json:"origin"`
	Ret        relay.Ret    `json:"ret,omitempty"`    // how much of it the sender wants back (RFC 3461)
	EnvID      string       `json:"envid,omitempty"`  // his own name for it
	Auth       string       `json:"auth,omitempty"`   // what was found about who sent it: "spf=fail dkim=pass dmarc=pass"
	Filter     string       `json:"filter,omitempty"` // what content filters said: "rspamd=no-action/1.20 clamd=clean"

	RequireTLS bool            `json:"require_tls,omitempty"` // it goes over TLS alone (RFC 8689)
	Release    time.Time       `json:"release,omitzero"`      // its sender lets it leave then
	DeliverBy  relay.DeliverBy `json:"deliver_by,omitzero"`   // and wants it delivered by then
	LineLost   float64         `json:"line_lost,omitempty"`   // seconds of its age that do not count, because our own line was down

	// Transcripts are the SMTP dialogues of the attempts that failed, and Transcript that of the last;
	// lists leave them out.
	Transcript  string             `json:"transcript,omitempty"`
	Transcripts []queue.Transcript `json:"transcripts,omitempty"`
}

// summary is an Item as a table needs it, without the two long fields: less than half the work of
// sending and reading it. A client asks for it with the preference return=minimal (RFC 7240 §4.2);
// a relayd that does not know it answers with whole Items.
type summary struct {
	*Item
	Recipients *struct{} `json:"recipients,omitempty"`
	Origin     *struct{} `json:"origin,omitempty"`
}

const preferSummary = "return=minimal"

// Recipient is how things stand for one recipient of an Item.
type Recipient struct {
	Address string       `json:"address"`
	Orig    string       `json:"orig,omitempty"` // what RCPT TO said, where that differs
	State   string       `json:"state"`          // waiting (not tried yet), deferred, delivered, failed
	Code    int          `json:"code,omitempty"`
	Status  relay.Status `json:"status,omitzero"`
	Text    string       `json:"text,omitempty"` // in the remote's own words
	Host    string       `json:"host,omitempty"` // who said it; empty: we did
	TLS     string       `json:"tls,omitempty"`
	Way     string       `json:"way,omitempty"` // "IPv6", or "IPv4, not IPv6: " and why; empty: there was no choice
	At      time.Time    `json:"at,omitzero"`

	Notify relay.Notify `json:"notify,omitzero"` // what the sender wants to hear of, as NOTIFY says it
	ORcpt  string       `json:"orcpt,omitempty"` // "rfc822;ann@office.example"
}

// Key is the item's name among those of its letter, as all verbs take it: id/domain.
func (it Item) Key() string { return string(it.ID) + "/" + string(it.Domain) }

// NewItem turns a queue's item into what is shown of it.
func NewItem(q queue.Item) Item {
	it := Item{Release: q.Release, DeliverBy: q.By, Ret: q.Ret, EnvID: q.EnvID, RequireTLS: q.RequireTLS, ID: q.ID, Domain: q.Domain, From: q.From.String(), To: []string{}, Size: q.Size,
		Accepted: q.Accepted, Attempts: q.Attempts, Next: q.Next, Held: q.Held, Warned: q.Warned,
		Recipients: []Recipient{}, Origin: q.Origin, Auth: q.Auth, Filter: q.Filter, Via: q.Via}
	if q.Held {
		it.Hold = q.Hold
	}
	last := map[relay.Address]relay.Result{}
	var newest relay.Result
	for _, r := range q.Last {
		last[r.Rcpt] = r
		if newest.At.IsZero() || r.At.After(newest.At) {
			newest = r
		}
	}
	it.LastAnswer = newest.Reply.String()
	for _, rcpt := range q.Rcpts {
		it.To = append(it.To, rcpt.Addr.String())
		r := Recipient{Address: rcpt.Addr.String(), State: "waiting"}
		if res, ok := last[rcpt.Addr]; ok {
			r = newRecipient(res)
		}
		if rcpt.Orig != r.Address {
			r.Orig = rcpt.Orig
		}
		r.Notify, r.ORcpt = rcpt.Notify, rcpt.ORcpt
		it.Recipients = append(it.Recipients, r)
	}
	for _, res := range q.Done {
		it.Recipients = append(it.Recipients, newRecipient(res))
	}
	return it
}

func newRecipient(r relay.Result) Recipient {
	return Recipient{Address: r.Rcpt.String(), State: string(r.Outcome), Code: r.Reply.Code,
		Status: r.Reply.Status, Text: r.Reply.Text, Host: r.Host, TLS: r.TLS, Way: r.Way, At: r.At}
}

// Order is the body of POST /v1/queue/{verb}: what to do it to. An empty Filter needs All, so
// that no slip of a script empties the queue.
type Order struct {
	Filter
	All    bool      `json:"all,omitempty"`
	Reason string    `json:"reason,omitempty"` // bounce: what the sender is told; one line
	At     time.Time `json:"at,omitzero"`      // schedule: when it is tried next
	Via    *string   `json:"via,omitempty"`    // route: a host, host:port, "mx", or "" for where the routes lead
}

// Done answers an Order.
type Done struct {
	Count int `json:"count"` // items
}

// About is what only cmd/relayd knows of a running daemon.
type About struct {
	Version      string        `json:"version"`
	Hostname     string        `json:"hostname"`
	Config       string        `json:"config"` // the file it reads; empty: none
	Listeners    []Address     `json:"listeners"`
	Certificates []Certificate `json:"certificates"`
	MinFreeDisk  int64         `json:"min_free_disk"` // octets; mail is refused below
	Warnings     []string      `json:"warnings,omitempty"`

	Filters []ContentFilter `json:"filters,omitempty"`

	LineDown time.Time `json:"line_down_since,omitzero"` // our own line: no destination can be reached
}

// Address is one listener.
type Address struct {
	Service string `json:"service"`
	Address string `json:"address"`
}

// Certificate is one certificate we show to clients.
type Certificate struct {
	Name       string    `json:"name"`             // the first of Names; empty without any
	Names      []string  `json:"names"`            // hosts it is for
	From       string    `json:"from"`             // the file, or "acme"
	Expires    time.Time `json:"expires,omitzero"` // zero: there is none yet
	SelfSigned bool      `json:"self_signed"`
	Problem    string    `json:"problem,omitzero"` // why a renewal is not in use
}

// Status answers GET /v1/status.
type Status struct {
	About
	PID     int            `json:"pid"`
	Started time.Time      `json:"started"`
	DataDir string         `json:"data_dir"`
	Queue   Totals         `json:"queue"`
	Disk    Disk           `json:"disk"`
	Open    []ServiceStats `json:"connections"`
	Errors  []string       `json:"errors"` // what could not be found out

	HeldUsers []string       `json:"held_users,omitempty"` // over their limits, see Holds
	Paused    []orders.Pause `json:"paused,omitempty"`
}

// Disk is the file system of the data directory, in octets.
type Disk struct {
	Free  int64 `json:"free"`
	Total int64 `json:"total"`
}

// Stats answers GET /v1/stats: counters since the start.
type Stats struct {
	Messages map[string]int64 `json:"messages"` // by the seven words
	Services []ServiceStats   `json:"services"`
	Users    []UserStats      `json:"users"` // who has done anything, by name
}

// ServiceStats counts for one service ("smtp", "pop3").
type ServiceStats struct {
	Service     string `json:"service"`
	Connections int64  `json:"connections"` // ever
	Now         int64  `json:"now"`
	BytesIn     int64  `json:"bytes_in"`
	BytesOut    int64  `json:"bytes_out"`
}

// Totals sums up Items.
type Totals struct {
	Items      int       `json:"items"`    // letters, one for each domain they go to
	Messages   int       `json:"messages"` // letters
	Recipients int       `json:"recipients"`
	Size       int64     `json:"size"`             // octets of the letters, each counted once
	Held       int       `json:"held"`             // items
	Paused     int       `json:"paused,omitempty"` // items that are not held and rest
	Oldest     time.Time `json:"oldest,omitzero"`
	NextDue    time.Time `json:"next_due,omitzero"`

	last relay.ID
}

// Add counts one more item. Those of one letter must come one after the other, as lists have them.
func (t *Totals) Add(it Item) {
	t.Items++
	t.Recipients += len(it.To)
	if it.ID != t.last {
		t.last = it.ID
		t.Messages++
		t.Size += it.Size
	}
	if it.Held {
		t.Held++
	} else if it.Paused {
		t.Paused++
	} else if t.NextDue.IsZero() || it.Next.Before(t.NextDue) {
		t.NextDue = it.Next
	}
	if t.Oldest.IsZero() || it.Accepted.Before(t.Oldest) {
		t.Oldest = it.Accepted
	}
}

// Error is a refusal that came over the socket, or that a Reader would send over it.
type Error struct {
	Code    int    `json:"-"` // HTTP status: 404 no such letter, 409 ambiguous, ...
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// IsNotFound says whether the letter asked for is not in the queue.
func (e *Error) IsNotFound() bool { return e.Code == http.StatusNotFound }

func refuse(code int, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
