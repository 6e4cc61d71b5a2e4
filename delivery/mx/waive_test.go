package mx

import (
	"strings"
	"testing"
	"testing/synctest"

	"relayd/relay"
)

func TestWaivesTLS(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"TLS-Required: No\r\n\r\nx":                                        true,
		"Subject: x\r\ntls-required :  no \r\n\r\nx":                       true,
		"X: " + strings.Repeat("y", 9000) + "\r\nTLS-Required: No\r\n\r\n": true,
		"TLS-Required: Yes\r\n\r\n":                                        false,
		"TLS-Required: No\r\nTLS-Required: No\r\n\r\n":                     false,
		"Subject: x\r\n\r\nTLS-Required: No\r\n":                           false,
		"Subject: x\r\n TLS-Required: No\r\n\r\n":                          false,
		"X: " + strings.Repeat("y", 4093) + "TLS-Required: No\r\n\r\n":     false,
		"": false,
	} {
		l, err := newLetter(relay.Envelope{}, strings.NewReader(text))
		if got := l.waivesTLS(); got != want || err != nil {
			t.Errorf("%.40q: %v", text, got)
		}
	}
}

// TestTLSRequiredNo: the writer's word beats what the domain says, and not what the operator says.
func TestTLSRequiredNo(t *testing.T) {
	const letter = "TLS-Required: No\r\n" + hello
	for _, tt := range []struct{ route, want string }{{"", ", unverified (TLS-Required: No)"}, {TLSVerify, "4.7.5"}} {
		synctest.Test(t, func(t *testing.T) {
			n, r := encrypting(selfSigned())
			got := n.send(t, envelope("bob@partner.example"), letter, trusting(tt.route), func(c *Config) {
				c.Policies = says{Mode: relay.STSEnforce, MX: []string{"mx9.partner.example"}}
				c.Secure = &vouched{network: n, mx: true, err: errServfail}
			})[0]
			wantTLS(t, got, r, tt.want)
			if len(r.mails) > 0 && !strings.HasPrefix(r.mails[0].data, letter) {
				t.Errorf("arrived: %q", r.mails[0].data)
			}
		})
	}
}
