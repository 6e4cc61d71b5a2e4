package intake_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
	"relayd/relay/intake"
)

// dnsOf answers for domains by what their name begins with, after a while.
type dnsOf struct {
	relay.Resolver
	delay time.Duration

	mu    sync.Mutex
	asked []relay.Domain
}

func (r *dnsOf) answer(ctx context.Context, d relay.Domain, what string) error {
	r.mu.Lock()
	r.asked = append(r.asked, d)
	r.mu.Unlock()
	select {
	case <-time.After(r.delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	kind, _, _ := strings.Cut(string(d), ".")
	kind = strings.TrimRight(kind, "0123456789")
	switch {
	case kind == "silent":
		<-ctx.Done()
		return ctx.Err()
	case kind == "servfail", kind == "half" && what == "A":
		return errors.New("SERVFAIL")
	case kind == "mx" && what == "MX", kind == "null" && what == "MX", kind == "plain" && what == "A":
		return nil
	}
	return fmt.Errorf("NXDOMAIN: %w", relay.ErrNoRecord)
}

func (r *dnsOf) MX(ctx context.Context, d relay.Domain) ([]relay.MX, error) {
	if err := r.answer(ctx, d, "MX"); err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(d), "null") {
		return []relay.MX{{}}, nil
	}
	return []relay.MX{{Host: "mail." + d, Pref: 10}}, nil
}

func (r *dnsOf) Addrs(ctx context.Context, d relay.Domain) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, r.answer(ctx, d, "A")
}

var submitter = relay.Origin{User: "ann@office.example", Service: "submission", Client: stranger.Client}

func newTypoHouse(t *testing.T, dns *dnsOf) *house {
	h := &house{local: &store{}, foreign: &store{}}
	h.Intake = intake.New(intake.Options{
		Local: h.local, Foreign: h.foreign, DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), DNS: dns,
		Suggest: func(d relay.Domain) (relay.Domain, bool) { return "gmail.com", d == "gmial.com" },
	})
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100},
		Routed: func(d relay.Domain) bool { return d == "gone.routed.example" }})
	return h
}

func (h *house) begin(t *testing.T, o relay.Origin) relay.Transaction {
	t.Helper()
	from := relay.Address{Local: "ann", Domain: "office.example"}
	tx, err := h.Begin(t.Context(), o, from, relay.MailParams{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Abort)
	return tx
}

func rcpt(t *testing.T, tx relay.Transaction, to string) string {
	t.Helper()
	a, err := relay.ParseAddress(to, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Rcpt(t.Context(), a, relay.RcptParams{}); err != nil {
		f, _ := errors.AsType[*relay.Failure](err)
		return f.Reply.String()
	}
	return ""
}

func TestDomainsAreCheckedAtSubmission(t *testing.T) {
	t.Parallel()
	dns := &dnsOf{}
	h := newTypoHouse(t, dns)
	for to, want := range map[string]string{
		"x@gmial.com":           "550 5.1.2 the domain gmial.com does not exist, or has no mail server; did you mean x@gmail.com?",
		"x@gone.example":        "550 5.1.2 the domain gone.example does not exist, or has no mail server",
		"x@null.example":        "550 5.1.10 the domain null.example says in the DNS that it takes no mail",
		"x@mx.example":          "",
		"x@plain.example":       "", // RFC 5321 §5.1: no MX, but an address
		"x@servfail.example":    "",
		"x@half.example":        "", // no MX, and its address could not be asked for
		"x@gone.routed.example": "",
		"x@[192.0.2.1]":         "",
		"bob@office.example":    "",
		"sales@office.example":  "", // leads to dora@partner.example too, which the operator wrote
	} {
		if got := rcpt(t, h.begin(t, submitter), to); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	for _, d := range []relay.Domain{"gone.routed.example", "office.example", "partner.example"} {
		if slices.Contains(dns.asked, d) {
			t.Errorf("the DNS was asked about %s", d)
		}
	}
	for _, o := range []relay.Origin{trusted, {Service: "smtp", Client: trusted.Client}} {
		if got := rcpt(t, h.begin(t, o), "x@gone.example"); got != "" {
			t.Errorf("%+v: %q", o, got)
		}
	}
}

// TestSilentDNSCostsOnePatience: the domains of a letter together wait five seconds at most, and
// what is heard meanwhile still counts.
func TestSilentDNSCostsOnePatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTypoHouse(t, &dnsOf{})
		tx := h.begin(t, submitter)
		start := time.Now()
		for i := range 20 {
			if got := rcpt(t, tx, fmt.Sprintf("x@silent%d.example", i)); got != "" {
				t.Errorf("refused: %s", got)
			}
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("20 silent domains took %v", took)
		}
		tx.Abort()
	})
}

// TestPipelinedDomainsAreAskedTogether: what is expected before its turn costs one round trip.
func TestPipelinedDomainsAreAskedTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTypoHouse(t, &dnsOf{delay: 100 * time.Millisecond})
		tx := h.begin(t, submitter)
		start := time.Now()
		for i := range 50 {
			tx.(interface {
				Expect(context.Context, relay.Address)
			}).Expect(t.Context(), relay.Address{Local: "x", Domain: relay.Domain(fmt.Sprintf("mx%d.example", i))})
		}
		for i := range 50 {
			if got := rcpt(t, tx, fmt.Sprintf("x@mx%d.example", i)); got != "" {
				t.Errorf("refused: %s", got)
			}
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("50 domains took %v", took)
		}
		tx.Abort()
	})
}
