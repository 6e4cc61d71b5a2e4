package mx

import (
	"testing"

	"relayd/relay"
)

// An order of the operator outranks every route; it takes the login and the TLS of the route that
// leads to the same host and port, and of no other.
func TestOrdered(t *testing.T) {
	t.Parallel()
	n := &network{}
	c := n.client(func(c *Config) {
		c.Routes = []Route{
			{To: "*", Via: "usual.example", TLS: TLSVerify},
			{To: "other.example", Via: "smart.example", Port: 587, User: "office", Password: "hunter2", TLS: TLSVerify},
			{To: "other.example", Via: "[192.0.2.1]", User: "x"},
		}
	})
	for _, tt := range []struct {
		via  string
		want Route
	}{
		{"smart.example:587", Route{To: "to.example", Via: "smart.example", Port: 587, User: "office", Password: "hunter2", TLS: TLSVerify}},
		{"smart.example", Route{To: "to.example", Via: "smart.example"}},
		{"smart.example:465", Route{To: "to.example", Via: "smart.example", Port: 465}},
		{"192.0.2.1:25", Route{To: "to.example", Via: "[192.0.2.1]", Port: 25, User: "x"}},
		{"usual.example:25", Route{To: "to.example", Via: "usual.example", Port: 25, TLS: TLSVerify}},
	} {
		ch, err := c.choose(t.Context(), &relay.Envelope{Via: tt.via}, "to.example")
		if err != nil || ch.via == nil || ch.rescue != nil {
			t.Fatalf("%s: %+v, %v", tt.via, ch, err)
		}
		if got := *ch.via; got.To != tt.want.To || got.Via != tt.want.Via || got.Port != tt.want.Port || got.User != tt.want.User ||
			got.Password != tt.want.Password || got.TLS != tt.want.TLS {
			t.Errorf("%s: %+v, want %+v", tt.via, got, tt.want)
		}
	}
	for _, via := range []string{relay.ViaMX, "no host:x:y"} {
		if ch, err := c.choose(t.Context(), &relay.Envelope{Via: via}, "to.example"); err != nil || ch.via != nil || ch.rescue != nil {
			t.Errorf("%s: %+v, %v; want the mail hosts", via, ch, err)
		}
	}
}
