package relaytest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// HoldOpen keeps what this process has open at path open until the test ends, as a child does that has
// been forked and has not called exec yet.
func HoldOpen(t testing.TB, path string) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	held := false
	for _, link := range links {
		if at, _ := os.Readlink(link); at != path {
			continue
		}
		var fd int
		if _, err := fmt.Sscan(filepath.Base(link), &fd); err != nil {
			t.Fatal(err)
		}
		twin, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		held = true
		t.Cleanup(func() { unix.Close(twin) })
	}
	if !held {
		t.Fatalf("relaytest: %s is not open", path)
	}
}
