package durable

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Only where the kernel names its journal's task does one fsync carry every name before it.
func TestCarriedNames(t *testing.T) {
	t.Parallel()
	dev := unix.Mkdev(254, 3)
	for task, want := range map[string]int{"1234\n": math.MaxInt, "0\n": math.MaxInt, "<none>\n": 1, "": 0} {
		sys := t.TempDir()
		if err := os.MkdirAll(filepath.Join(sys, "dev", "block"), 0o700); err != nil {
			t.Fatal(err)
		}
		if carriedByExt4(sys, dev) > 0 {
			t.Error("a device that sysfs does not know carries names")
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
		if got := carriedByExt4(sys, dev); got != want {
			t.Errorf("%q: %d", task, got)
		}
	}
}
