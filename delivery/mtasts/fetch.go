package mtasts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"time"

	"relayd/delivery/web"
	"relayd/relay"
)

// fetchTimeout bounds a fetch.
const fetchTimeout = 30 * time.Second

// newClient makes a client that follows no redirects because RFC 8461 §3.3 says so: who could answer
// one could answer for the domain.
func (s *Store) newClient() *http.Client {
	return web.NewClient(web.Options{Timeout: fetchTimeout, Resolver: s.o.Resolver, Roots: s.o.Roots, Dial: s.o.Dial,
		MayAsk: func(a netip.Addr) bool { return s.o.AllowLoopback || !a.IsLoopback() }})
}

// errInvalid is of a policy that was fetched and says nothing that can be followed.
var errInvalid = errors.New("it is no policy")

// get asks the policy host of d.
func (s *Store) get(ctx context.Context, d relay.Domain) (policy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+string(PolicyHost(d))+policyPath, nil)
	if err != nil {
		return policy{}, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return policy{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return policy{}, fmt.Errorf("the web server answers %d", resp.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return policy{}, fmt.Errorf("it is of type %.40q, not text/plain", resp.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return policy{}, err
	}
	if len(text) > maxBody {
		return policy{}, fmt.Errorf("it is longer than %d octets", maxBody)
	}
	p, err := parse(string(text))
	if err != nil {
		return policy{}, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return p, nil
}
