package records

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"relayd/relay"
)

// spf is one evaluation of an SPF record (RFC 7208) for the advice given here. Macros and the
// mechanisms exists and ptr, which do not belong in an office's record, match nothing.
type spf struct {
	dns   relay.Resolver
	addr  netip.Addr
	asked int
}

// maxTerms is how many terms may ask the DNS (RFC 7208 §4.6.4).
const maxTerms = 10

var errPermanent = errors.New("permerror")

// evaluate says what the record of d makes of mail from addr: pass, fail, softfail, neutral, none,
// permerror or temperror.
func evaluate(ctx context.Context, dns relay.Resolver, addr netip.Addr, d relay.Domain) string {
	s := &spf{dns: dns, addr: addr}
	result, err := s.domain(ctx, d)
	switch {
	case errors.Is(err, errPermanent):
		return "permerror"
	case err != nil:
		return "temperror"
	}
	return result
}

func (s *spf) domain(ctx context.Context, d relay.Domain) (string, error) {
	texts, err := s.dns.TXT(ctx, string(d))
	if err != nil && !errors.Is(err, relay.ErrNoRecord) {
		return "", err
	}
	record := ""
	for _, text := range texts {
		rest, ok := cutPrefixFold(text, "v=spf1")
		if !ok || rest != "" && rest[0] != ' ' {
			continue
		}
		if record != "" {
			return "", errPermanent
		}
		record = text
	}
	if record == "" {
		return "none", nil
	}
	redirect := ""
	for _, term := range strings.Fields(strings.ToLower(record))[1:] {
		if target, ok := strings.CutPrefix(term, "redirect="); ok {
			redirect = target
			continue
		}
		if result, err := s.term(ctx, term, d); result != "" || err != nil {
			return result, err
		}
	}
	if redirect == "" {
		return "neutral", nil
	}
	return s.include(ctx, redirect)
}

// term is the result of a term; empty where it does not match.
func (s *spf) term(ctx context.Context, term string, d relay.Domain) (string, error) {
	result := "pass"
	if q, ok := map[byte]string{'+': "pass", '-': "fail", '~': "softfail", '?': "neutral"}[term[0]]; ok {
		result, term = q, term[1:]
	}
	name, value, _ := strings.Cut(term, ":")
	name, bits, _ := strings.Cut(name, "/")
	matches, err := false, error(nil)
	switch name {
	case "all":
		matches = true
	case "ip4", "ip6":
		matches, err = s.network(value)
	case "a", "mx":
		if value != "" {
			value, bits, _ = strings.Cut(value, "/")
		} else {
			value = string(d)
		}
		matches, err = s.hosts(ctx, name, relay.Domain(value), bits)
	case "include":
		var inner string
		inner, err = s.include(ctx, value)
		matches = inner == "pass"
	}
	if err != nil || !matches {
		return "", err
	}
	return result, nil
}

func (s *spf) include(ctx context.Context, name string) (string, error) {
	if s.asked++; s.asked > maxTerms {
		return "", errPermanent
	}
	result, err := s.domain(ctx, relay.Domain(name))
	if err == nil && result == "none" {
		return "", errPermanent
	}
	return result, err
}

func (s *spf) network(text string) (bool, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a == s.addr, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return false, errPermanent
	}
	return p.Contains(s.addr), nil
}

// hosts says whether the address is one of d's (a), or of its mail hosts' (mx).
func (s *spf) hosts(ctx context.Context, name string, d relay.Domain, bits string) (bool, error) {
	if s.asked++; s.asked > maxTerms {
		return false, errPermanent
	}
	list := []relay.Domain{d}
	if name == "mx" {
		found, err := s.dns.MX(ctx, d)
		if err != nil && !errors.Is(err, relay.ErrNoRecord) {
			return false, err
		}
		list = nil
		for _, mx := range found[:min(len(found), maxTerms)] {
			list = append(list, mx.Host)
		}
	}
	for _, host := range list {
		found, err := s.dns.Addrs(ctx, host)
		if err != nil && !errors.Is(err, relay.ErrNoRecord) {
			return false, err
		}
		for _, a := range found {
			if p := s.prefix(a, bits); p.Contains(s.addr) {
				return true, nil
			}
		}
	}
	return false, nil
}

// prefix is the network of an address: bits is "24", "/64" or "24//64", as RFC 7208 §5.6 has it.
func (s *spf) prefix(a netip.Addr, bits string) netip.Prefix {
	four, six, _ := strings.Cut(bits, "/")
	text := four
	if a.Is6() {
		text = strings.TrimPrefix(six, "/")
	}
	n, err := strconv.Atoi(text)
	if err != nil || n > a.BitLen() {
		n = a.BitLen()
	}
	p, _ := a.Prefix(n)
	return p
}
