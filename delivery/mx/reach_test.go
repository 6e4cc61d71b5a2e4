package mx

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestReaches: any greeting shows that our line works; a host that does not answer, hangs up or says
// nothing does not, and costs no more than its timeouts or ctx.
func TestReaches(t *testing.T) {
	for name, tt := range map[string]struct {
		r    *remote
		want bool
	}{
		"greets":  {&remote{}, true},
		"refuses": {saying("CONNECT", "554 5.7.1 go away", "HELP"), true},
		"drops":   {saying("CONNECT", drop, "HELP"), false},
		"stalls":  {saying("CONNECT", stall, "HELP"), false},
		"garbage": {saying("CONNECT", "hello there", "HELP"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := partner(tt.r).client(func(*Config) {})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				if got := c.Reaches(ctx, "partner.example"); got != tt.want || time.Since(start) > time.Minute {
					t.Errorf("%v after %v", got, time.Since(start))
				}
				if c.Reaches(ctx, "nobody.example") {
					t.Error("a domain without a host was reached")
				}
				c.Close()
			})
		})
	}
}
