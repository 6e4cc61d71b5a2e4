package durable

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Only where the kernel names its journal's task does one fsync carry everything before it.
func TestHasJournal(t *testing.T) {
	t.Parallel()
	dev := unix.Mkdev(254, 3)
	for task, want := range map[string]bool{"1234\n": true, "0\n": true, "<none>\n": false, "": false} {
		sys := t.TempDir()
		if err := os.MkdirAll(filepath.Join(sys, "dev", "block"), 0o700); err != nil {
			t.Fatal(err)
		}
		if hasJournal(sys, dev) {
			t.Error("a device that sysfs does not know has a journal")
		}
		if err := os.Symlink("../../devices/virtual/block/dm-3", filepath.Join(sys, "dev", "block", "254:3")); err != nil {
			t.Fatal(err)
		}
		if task != "" {
			dir := filepath.Join(sys, "fs", "ext4", "dm-3")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "journal_task"), []byte(task), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := hasJournal(sys, dev); got != want {
			t.Errorf("%q: %v", task, got)
		}
	}
}
