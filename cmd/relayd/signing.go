package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/intake"
	"relayd/relay/policy"
	"relayd/relay/resolver"
)

// signer lets intake have letters signed by relay/policy.
type signer struct{ keys *policy.Keys }

// Sign implements intake.Signer.
func (s signer) Sign(d relay.Domain, header []byte) intake.Signature {
	// A nil pointer would be a Signature.
	if signature := s.keys.Sign(d, header); signature != nil {
		return signature
	}
	return nil
}

// openKeys opens the keys to sign with. Their records are asked for past the cache: they are
// looked at just after somebody published them.
func (h *house) openKeys(cfg *config.Config) (err error) {
	fresh, err := resolver.New(cfg.DNSServers, resolver.CacheSize(0))
	if err != nil {
		return err
	}
	h.later(fresh.Close)
	h.fresh = fresh
	if h.keys, err = policy.OpenKeys(filepath.Join(cfg.DataDir, "keys", "dkim"), fresh, h.log); err != nil {
		return err
	}
	h.keys.SetDomains(signingDomains(cfg))
	return nil
}

// signingDomains is every domain of ours and the one that signs our reports.
func signingDomains(cfg *config.Config) []relay.Domain {
	list := slices.Sorted(maps.Keys(cfg.Domains))
	own := intake.SigningDomain(cfg.Hostname, func(d relay.Domain) bool { return slices.Contains(list, d) })
	if !slices.Contains(list, own) {
		list = append(list, own)
	}
	return list
}

// runKeys looks after the keys until ctx ends.
func (h *house) runKeys(ctx context.Context) error {
	h.keys.Run(ctx)
	return nil
}

// keyring shows the keys to the operator.
type keyring struct{ h *house }

// List implements admin.Keys.
func (r keyring) List(ctx context.Context, fresh bool) ([]admin.Key, error) {
	list, err := r.h.keys.List(ctx, fresh)
	return shownKeys(list), err
}

// Change implements admin.Keys.
func (r keyring) Change(ctx context.Context, o admin.KeyOrder) (_ []admin.Key, err error) {
	if !slices.Contains(signingDomains(r.h.config()), o.Domain) && o.Verb != "retire" {
		return nil, &admin.Error{Code: http.StatusNotFound, Message: fmt.Sprintf("%s is not a domain of this server", o.Domain)}
	}
	// What is missing is made before anything else, so that a first key is never a next one.
	if _, err := r.h.keys.List(ctx, false); err != nil {
		return nil, err
	}
	var list []policy.Key
	switch o.Verb {
	case "new":
		list, err = r.h.keys.New(o.Domain)
	case "rotate":
		list, err = r.h.keys.Rotate(ctx, o.Domain)
	case "retire":
		var k policy.Key
		k, err = r.h.keys.Retire(o.Domain, o.Selector, o.Force)
		list = []policy.Key{k}
	default:
		return nil, &admin.Error{Code: http.StatusBadRequest, Message: "keys are made, rotated and retired"}
	}
	if err != nil {
		return nil, keyError(err, o)
	}
	return shownKeys(list), nil
}

func keyError(err error, o admin.KeyOrder) error {
	e := &admin.Error{Code: http.StatusConflict, Message: err.Error()}
	switch {
	case errors.Is(err, policy.ErrNotVisible):
		e.Hint = "publish what relayctl dkim dns " + string(o.Domain) + " prints; nothing has changed"
	case errors.Is(err, policy.ErrNoKey) && o.Verb == "rotate":
		e.Hint = "relayctl dkim new " + string(o.Domain) + " makes the next keys"
	case errors.Is(err, policy.ErrNoKey):
		e.Code, e.Hint = http.StatusNotFound, "relayctl dkim ls shows what there is"
	case errors.Is(err, policy.ErrWaiting):
		e.Hint = "publish their records and rotate, or retire them"
	case errors.Is(err, policy.ErrInUse):
		e.Hint = "keys are retired after new ones have taken their place and the mail is through; --force retires an old one before"
	default:
		return err
	}
	return e
}

func shownKeys(list []policy.Key) (out []admin.Key) {
	for _, k := range list {
		shown := admin.Key{
			Domain: k.Domain, Selector: k.Selector, Algorithm: k.Algorithm, Role: string(k.Role), Made: k.Made, Since: k.Since,
			Visible: k.Visible, Checked: k.Checked, Problem: k.Problem,
			Name: k.RecordName(), Record: k.Record(), Strings: policy.TXTStrings(k.Record()),
		}
		if k.Role == policy.Old {
			shown.Needed = k.Since.Add(policy.Overlap)
		}
		out = append(out, shown)
	}
	return out
}

// signingWarnings says which domains send letters that are signed by no key, or by not every one.
func (h *house) signingWarnings() (list []string) {
	for _, k := range h.keys.Known() {
		if k.Role == policy.Active && !k.Visible {
			list = append(list, fmt.Sprintf("mail of %s is not signed by %s: %s; relayctl dkim dns %s", k.Domain, k.RecordName(), cmp.Or(k.Problem, "the DNS has not answered yet"), k.Domain))
		}
	}
	return list
}
