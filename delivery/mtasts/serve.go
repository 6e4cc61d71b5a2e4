package mtasts

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"relayd/relay"
)

// policyPath is where a domain's policy is, at the host PolicyHost (RFC 8461 §3.3).
const policyPath = "/.well-known/mta-sts.txt"

// PolicyHost is the name of the web host of a domain's policy.
func PolicyHost(d relay.Domain) relay.Domain { return "mta-sts." + d }

// Own is the policy of a domain of ours whose mail goes to these hosts. A policy that is obeyed
// holds for a week after somebody has seen it (RFC 8461 §3.2 wants weeks), others for a day, so that
// a mistake is soon forgotten.
func Own(mode relay.STSMode, hosts ...relay.Domain) relay.STSPolicy {
	p := relay.STSPolicy{Mode: mode, Age: 24 * time.Hour}
	if mode == relay.STSEnforce {
		p.Age = 7 * 24 * time.Hour
	}
	for _, h := range hosts {
		p.MX = append(p.MX, string(h))
	}
	return p
}

// RecordID is the id= of a policy's record (RFC 8461 §3.1): another one whenever the policy is.
func RecordID(p relay.STSPolicy) string {
	sum := sha256.Sum256([]byte(body(p)))
	return hex.EncodeToString(sum[:10])
}

func body(p relay.STSPolicy) string { return strings.Join(p.Lines(), "\r\n") + "\r\n" }

// Handler serves the policies of domains of ours; current is asked each time, and says false for a
// domain that has none. It answers over TLS alone, because a policy seen without it proves nothing.
// Everything else is for next.
func Handler(current func(relay.Domain) (relay.STSPolicy, bool), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != policyPath {
			next.ServeHTTP(w, r)
			return
		}
		host, _, _ := strings.Cut(strings.ToLower(r.Host), ":")
		name, ok := strings.CutPrefix(strings.TrimSuffix(host, "."), "mta-sts.")
		if !ok || r.TLS == nil {
			http.NotFound(w, r)
			return
		}
		p, ok := current(relay.Domain(name))
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "read it with GET", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Write([]byte(body(p)))
	})
}
