package dmarc

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"relayd/relay"
)

// maxDestinations bounds to how many addresses one report goes (RFC 9990 §3.5 leaves the number to us).
const maxDestinations = 5

// mailboxes are the addresses that an rua= names. What is no mailto, or no address, is passed over;
// the size behind a "!" of RFC 7489 is ignored (RFC 9989 §4.7 has none).
func mailboxes(rua string) (all []relay.Address) {
	for uri := range strings.SplitSeq(rua, ",") {
		uri = strings.TrimSpace(uri)
		if len(uri) < len("mailto:") || !strings.EqualFold(uri[:len("mailto:")], "mailto:") {
			continue
		}
		text, _, _ := strings.Cut(uri[len("mailto:"):], "?")
		text, _, _ = strings.Cut(text, "!")
		text, err := url.PathUnescape(text)
		if err != nil {
			continue
		}
		a, err := relay.ParseAddress(text, false)
		if err == nil && !a.Domain.IsLiteral() && a.Domain != "" && !slices.Contains(all, a) && len(all) < maxDestinations {
			all = append(all, a)
		}
	}
	return all
}

// destinations are the addresses a report goes to. An address of another organization counts only
// where that has agreed, and it may name other addresses at the same host (RFC 9990 §4). An error
// means that we could not ask.
func (s *Sender) destinations(ctx context.Context, a *Account) ([]relay.Address, error) {
	domain := a.Published.Domain
	var found []relay.Address
	for _, to := range mailboxes(a.RUA) {
		external, err := s.isExternal(ctx, domain, string(to.Domain))
		if err != nil {
			return nil, err
		}
		agreed := []relay.Address{to}
		if external {
			if agreed, err = s.agreed(ctx, domain, to); err != nil {
				return nil, err
			}
		}
		for _, to := range agreed {
			if !slices.Contains(found, to) && len(found) < maxDestinations {
				found = append(found, to)
			}
		}
	}
	return found, nil
}

func (s *Sender) isExternal(ctx context.Context, domain, host string) (bool, error) {
	if domain == host {
		return false, nil
	}
	a, err := s.Organization(ctx, domain)
	if err != nil {
		return false, err
	}
	b, err := s.Organization(ctx, host)
	return a != b, err
}

// agreed asks whether the host of an address takes reports about domain, and where.
func (s *Sender) agreed(ctx context.Context, domain string, to relay.Address) ([]relay.Address, error) {
	name := domain + "._report._dmarc." + string(to.Domain)
	if len(name) > 253 {
		return nil, nil
	}
	texts, err := s.DNS.TXT(ctx, name)
	if errors.Is(err, relay.ErrNoRecord) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ok := false
	for _, text := range texts {
		rua, isRecord := permission(text)
		if !isRecord {
			continue
		}
		ok = true
		if rua == "" {
			continue
		}
		instead := mailboxes(rua)
		if len(instead) == 0 || slices.ContainsFunc(instead, func(a relay.Address) bool { return a.Domain != to.Domain }) {
			return nil, nil // neither the one nor the other gets it
		}
		return instead, nil
	}
	if !ok {
		return nil, nil
	}
	return []relay.Address{to}, nil
}

// permission reads the record by which a host takes reports about a domain.
func permission(text string) (rua string, ok bool) {
	for i, part := range strings.Split(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		name, value = strings.ToLower(strings.Trim(name, " \t")), strings.Trim(value, " \t")
		switch {
		case i == 0 && (name != "v" || value != "DMARC1"):
			return "", false
		case name == "rua" && rua == "":
			rua = value
		}
	}
	return rua, true
}
