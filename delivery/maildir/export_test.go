package maildir

import (
	"os"

	"relayd/relay"
)

// For tests of package maildir_test.
var (
	Fold     = fold
	HostPart = hostPart
)

const BootFile = bootFile

// WaitSweep waits for the background sweep.
func (s *Store) WaitSweep() { s.work.Wait() }

// FailureOf is what Stage, Write and Commit make of an error.
func FailureOf(err error) error { return failure("test", err) }

// WriteTo makes a letter write to another file than its own.
func WriteTo(st relay.Staged, f *os.File) {
	st.(*Staged).file.Close()
	st.(*Staged).file = f
}
