package queue_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"relayd/queue"
)

// A file that the file system itself cannot read any more costs one letter: whether the queue has its
// database still or has lost it, it starts, and the other letters are there.
func TestStartWithSpoiledFile(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("database lost: ", lost), func(t *testing.T) {
			t.Parallel()
			f := newOffice(t)
			bad, good := f.send("bob@a.example"), f.send("carl@b.example")
			dead := f.left()
			if lost {
				if err := os.Remove(filepath.Join(dead, "relayd.db")); err != nil {
					t.Fatal(err)
				}
			}
			disk := spoil(t, dead, filepath.Join("bodies", string(bad)))
			q, err := queue.Open(disk, queue.Options{})
			if err != nil {
				t.Fatal(err)
			}
			g := &office{TB: t, dir: disk, q: q}
			is(t, "the queue", keysOf(g.list(queue.Filter{})), string(good)+"/b.example")
			if got := g.body(good); got != text {
				t.Errorf("the body is %q", got)
			}
			g.close()
		})
	}
}

// spoil copies a folder to a file system of its own and spoils one file there, as a bad block in the
// middle of a table does. Where that is not allowed the test is skipped.
func spoil(t *testing.T, from, name string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	top := t.TempDir()
	image := filepath.Join(top, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(top, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", name, err, out)
		}
	}
	run("mkfs.ext4", "-q", "-F", image)
	run("mount", "-o", "loop", image, disk)
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	dir = filepath.Join(disk, "queue")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	run("umount", disk)
	run("debugfs", "-w", "-R", fmt.Sprintf("clri <%d>", info.Sys().(*syscall.Stat_t).Ino), image)
	run("mount", "-o", "loop,errors=continue", image, disk)
	if _, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
		t.Fatal("it can be read")
	}
	return dir
}
