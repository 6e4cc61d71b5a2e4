package admin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// Filter chooses among the waiting letters; all its parts must match, and an empty one matches
// everything. What To, From and Domain match is told at queue.Filter. It travels as a URL's query
// (id, key, to, from, user, domain, older, held) or as JSON.
type Filter struct {
	// IDs names letters by ID, by id/domain, or by the beginning of an ID that no other letter
	// shares. One that is not in the queue is an error.
	IDs []string `json:"ids,omitempty"`
	// Keys names items exactly, by id/domain. One that has left the queue is passed over.
	Keys   []string `json:"keys,omitempty"`
	To     string   `json:"to,omitempty"`
	From   string   `json:"from,omitempty"`
	User   string   `json:"user,omitempty"` // who logged in to send it
	Domain string   `json:"domain,omitempty"`
	Older  Duration `json:"older,omitempty"`
	Held   *bool    `json:"held,omitempty"`
}

// Duration is a time.Duration written as text: "2h0m0s".
type Duration time.Duration

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a Go duration, not negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return refuse(http.StatusBadRequest, "%.40q is not a length of time", b)
	}
	*d = Duration(v)
	return nil
}

// maxNames bounds the IDs and keys of one Filter; relayctl sends more in several.
const maxNames = 10_000

// IsZero says whether the filter matches everything.
func (f Filter) IsZero() bool {
	return len(f.IDs) == 0 && len(f.Keys) == 0 && f.To == "" && f.From == "" && f.User == "" && f.Domain == "" &&
		f.Older == 0 && f.Held == nil
}

// Query is the filter as a URL's query, which ParseFilter reads.
func (f Filter) Query() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(f.IDs) > 0 {
		v["id"] = slices.Clone(f.IDs)
	}
	if len(f.Keys) > 0 {
		v["key"] = slices.Clone(f.Keys)
	}
	set("to", f.To)
	set("from", f.From)
	set("user", f.User)
	set("domain", f.Domain)
	if f.Older != 0 {
		v.Set("older", time.Duration(f.Older).String())
	}
	if f.Held != nil {
		v.Set("held", strconv.FormatBool(*f.Held))
	}
	return v
}

// ParseFilter reads a URL's query. Names it does not know are errors: a filter that is ignored
// would choose more than was meant.
func ParseFilter(v url.Values) (Filter, error) {
	var f Filter
	for name, values := range v {
		if name != "id" && name != "key" && len(values) != 1 {
			return Filter{}, refuse(http.StatusBadRequest, "the filter %.40q is given %d times", name, len(values))
		}
		if err := f.set(name, values); err != nil {
			return Filter{}, err
		}
	}
	return f, nil
}

func (f *Filter) set(name string, values []string) error {
	switch name {
	case "id":
		f.IDs = values
	case "key":
		f.Keys = values
	case "to":
		f.To = values[0]
	case "from":
		f.From = values[0]
	case "user":
		f.User = values[0]
	case "domain":
		f.Domain = values[0]
	case "older":
		return f.Older.UnmarshalText([]byte(values[0]))
	case "held":
		held, err := strconv.ParseBool(values[0])
		if err != nil {
			return refuse(http.StatusBadRequest, "held is true or false, not %.40q", values[0])
		}
		f.Held = &held
	default:
		return refuse(http.StatusBadRequest, "there is no filter %.40q", name)
	}
	return nil
}

// resolve turns f into the queue's own filter: names become IDs and keys that exist.
func resolve(ctx context.Context, q Lister, f Filter) (queue.Filter, error) {
	out := queue.Filter{To: f.To, From: f.From, User: f.User, Domain: f.Domain,
		OlderThan: time.Duration(f.Older), Held: f.Held}
	if len(f.IDs)+len(f.Keys) > maxNames {
		return out, refuse(http.StatusBadRequest, "more than %d ids at once", maxNames)
	}
	// The queue takes a pattern too; anything else that is no domain would quietly match nothing.
	if f.Domain != "" && !strings.ContainsAny(f.Domain, "*?") {
		if _, err := relay.ParseDomain(f.Domain); err != nil {
			return out, refuse(http.StatusBadRequest, "%.80q is not a domain: %v", f.Domain, err)
		}
	}
	for _, text := range f.Keys {
		k, whole, err := parseName(text)
		if err != nil || !whole || k.Domain == "" {
			return out, refuse(http.StatusBadRequest, "%.80q is not of the form id/domain", text)
		}
		out.Keys = append(out.Keys, k)
	}
	for _, text := range f.IDs {
		k, err := find(ctx, q, text)
		switch {
		case err != nil:
			return out, err
		case k.Domain == "":
			out.IDs = append(out.IDs, k.ID)
		default:
			out.Keys = append(out.Keys, k)
		}
	}
	return out, nil
}

// parseName reads an ID, the beginning of one, or either with /domain. whole says that the ID is
// complete.
func parseName(text string) (k queue.Key, whole bool, err error) {
	id, domain, both := strings.Cut(strings.ToLower(strings.TrimSpace(text)), "/")
	if both {
		if k.Domain, err = relay.ParseDomain(domain); err != nil {
			return k, false, refuse(http.StatusBadRequest, "%.80q: %v", text, err)
		}
	}
	// Filled up with zeros, the beginning of an ID is an ID; anything else is not.
	const zeros = "0000000000000000"
	if id == "" || len(id) > len(zeros) {
		return k, false, notAnID(text)
	}
	if _, err := relay.ParseID(id + zeros[len(id):]); err != nil {
		return k, false, notAnID(text)
	}
	k.ID = relay.ID(id)
	return k, len(id) == len(zeros), nil
}

func notAnID(text string) *Error {
	e := refuse(http.StatusBadRequest, "%.80q is not a queue id", text)
	e.Hint = "relayctl queue ls shows them"
	return e
}

// find looks up what an operator typed. Errors are *Error.
func find(ctx context.Context, q Lister, text string) (queue.Key, error) {
	k, whole, err := parseName(text)
	if err != nil {
		return k, err
	}
	if !whole {
		if k.ID, err = findPrefix(ctx, q, k.ID); err != nil {
			return k, err
		}
	}
	items, err := q.Get(ctx, k.ID)
	if err != nil && !isNotFound(err) {
		return k, err
	}
	for _, it := range items {
		if k.Domain == "" || it.Domain == k.Domain {
			return k, nil
		}
	}
	return k, notQueued(text)
}

func notQueued(text string) *Error {
	e := refuse(http.StatusNotFound, "%.80s is not in the queue", text)
	e.Hint = "it was delivered, returned or dropped, or never came; the log of relayd knows"
	return e
}

// findPrefix is the one letter whose ID begins with prefix.
func findPrefix(ctx context.Context, q Lister, prefix relay.ID) (relay.ID, error) {
	var found relay.ID
	for it, err := range q.List(ctx, queue.Filter{}) {
		// A broken item must not hide the others from the operator who is here to remove it.
		if err != nil || !strings.HasPrefix(string(it.ID), string(prefix)) || it.ID == found {
			continue
		}
		if found != "" {
			e := refuse(http.StatusConflict, "more than one letter's id begins with %s", prefix)
			e.Hint = "among them " + string(found) + " and " + string(it.ID)
			return "", e
		}
		found = it.ID
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if found == "" {
		return "", notQueued(string(prefix))
	}
	return found, nil
}
