package mx

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// Why we do not log in at the host of a route although the configuration says so.
var (
	errNoTLS  = errors.New("it offers no TLS, and a password does not cross the line without")
	errNoAuth = errors.New("it offers neither AUTH PLAIN nor AUTH LOGIN, and our configuration wants a login")
)

// login says who we are at the host of a route (RFC 4954). A refusal is the host's trouble: the
// letters wait for a password that is right.
func (s *session) login(r *Route) error {
	if s.tls == "" {
		return lost(phaseAUTH, errNoTLS)
	}
	offered := strings.Fields(strings.ToUpper(s.ext["AUTH"]))
	var a answer
	var err error
	switch {
	case slices.Contains(offered, "PLAIN"):
		a, err = s.exchange(phaseAUTH, "AUTH PLAIN "+encode("\x00"+r.User+"\x00"+string(r.Password)))
	case slices.Contains(offered, "LOGIN"):
		for _, line := range []string{"AUTH LOGIN", encode(r.User), encode(string(r.Password))} {
			if a, err = s.exchange(phaseAUTH, line); err != nil || a.code != 334 {
				break
			}
		}
	default:
		return lost(phaseAUTH, errNoAuth)
	}
	if err == nil && a.code/100 != 2 {
		return refused(phaseAUTH, a.reply())
	}
	return err
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (t target) logsIn() bool { return t.via != nil && t.via.User != "" }

// implicitTLS says that TLS comes before the greeting: RFC 8314 §3.3 has a port for that.
func (t target) implicitTLS() bool {
	return t.via != nil && t.addr.Port() == 465 && t.need.level != levelClear
}
