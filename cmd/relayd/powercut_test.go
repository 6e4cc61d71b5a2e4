//go:build interop

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"relayd/relay/relaytest"
)

// What the disk has when the 250 arrives is all that counts: the power goes, the file system is
// repaired as at a boot, and every letter that was promised is in each mailbox it was for, or in the
// queue. A journal carries all names of a letter at once; without one each directory is by itself.
func TestInteropPowerCut(t *testing.T) {
	for _, c := range []struct {
		name      string
		megabytes int
		mkfs      []string
		fsck      string
	}{
		{"ext4", 32, []string{"mke2fs", "-q", "-t", "ext4", "-O", "has_journal"}, "e2fsck -fy"},
		{"ext4 without a journal", 32, []string{"mke2fs", "-q", "-t", "ext4", "-O", "^has_journal"}, "e2fsck -fy"},
		{"xfs", 320, []string{"mkfs.xfs", "-q"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			b := strikeOn(t, dir, newDisk(t, filepath.Join(dir, "data"), c.megabytes, c.mkfs...), "1KB")
			const carl = "carl@office.test"
			b.ctl(officePassword, "user", "add", carl, "--password-stdin")
			for _, rcpts := range [][]string{{ann, carl}, {carl, ann, bob}, {ann}, {bob}, {bob, ann}, {ann, carl}} {
				if reply := b.send(3_000, rcpts...); reply != "250" {
					t.Fatalf("refused: %s", reply)
				}
			}
			if err := b.server.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // it would write for ever
				t.Fatal(err)
			}
			b.disk.cut(b.server.kill, c.fsck)
			b.open()
			for _, p := range b.promised {
				if number, who, _ := strings.Cut(p, " "); who == carl && b.inNew(carl, number) != 1 {
					t.Errorf("letter %s came to %s %d times", number, carl, b.inNew(carl, number))
				}
			}
			b.forget(carl)
			b.account(b.correspondent(), "")
		})
	}
}

// cut takes the file system as it lies on its disk now, whatever stands in memory, and brings that back
// when whoever used it has been killed.
func (d *disk) cut(kill func(), fsck string) {
	d.t.Helper()
	left := d.image + ".left"
	relaytest.CopyDisk(d.t, d.image, left)
	kill()
	d.run("umount", d.dir)
	if err := os.Rename(left, d.image); err != nil {
		d.t.Fatal(err)
	}
	if fsck != "" {
		// Its exit status says that it mended something.
		(&office{t: d.t}).try("", "sh", "-c", fsck+" "+d.image)
	}
	d.mount()
	d.t.Cleanup(func() { unix.Unmount(d.dir, unix.MNT_DETACH) })
}

// inNew counts the whole letters of a number that lie in a mailbox.
func (b *stricken) inNew(user, number string) (n int) {
	local, _, _ := strings.Cut(user, "@")
	files, _ := filepath.Glob(b.path("data/mail/office.test/" + local + "/new/*"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), "X-Number: "+number+"\n") && strings.HasSuffix(string(text), "The end.\n") {
			n++
		}
	}
	return n
}

// forget takes a recipient off the account.
func (b *stricken) forget(rcpt string) {
	var rest []string
	for _, p := range b.promised {
		if !strings.HasSuffix(p, " "+rcpt) {
			rest = append(rest, p)
		}
	}
	b.promised = rest
}
