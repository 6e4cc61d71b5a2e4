package queue_test

import (
	"path/filepath"
	"testing"

	"relayd/relay/relaytest"
)

// Whoever forks has our descriptors in the child until it calls exec. The queue is free all the same when
// it has been closed.
func TestQueueIsFreeDuringAFork(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	relaytest.HoldOpen(t, filepath.Join(f.dir, "lock"))
	f.reopen()
}
