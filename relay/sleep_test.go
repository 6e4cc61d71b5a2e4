package relay_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !relay.Sleep(t.Context(), time.Minute) || time.Since(start) != time.Minute {
			t.Errorf("a minute took %v", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if relay.Sleep(ctx, time.Minute) || time.Since(start) != time.Minute+time.Second {
			t.Errorf("it slept on: %v", time.Since(start))
		}
	})
}
