package maildir_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayd/relay/relaytest"
)

// A letter to a mailbox on another file system than the root's is on that disk when Commit returns:
// nobody flushes it together with the root's.
func TestOtherFileSystemSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	top := t.TempDir()
	image, far, root := filepath.Join(top, "image"), filepath.Join(top, "far"), filepath.Join(top, "mail")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-O", "has_journal", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	mountImage(t, image, far)
	s := open(t, root)
	for _, dir := range []string{filepath.Join(far, "bob"), filepath.Join(root, "office.example")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(far, "bob"), filepath.Join(root, "office.example", "bob")); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, deliverTo := range []func(body string){
		func(body string) { deliver(t, s, body, ann, bob) }, // copied
		func(body string) { deliver(t, s, body, bob, ann) },
		func(body string) { deliver(t, s, body, bob) },
	} {
		body := strings.Repeat(fmt.Sprintf("letter %d\r\n", i), 1000)
		deliverTo(body)
		want = append(want, strings.ReplaceAll(body, "\r\n", "\n"))
		cut, after := filepath.Join(top, fmt.Sprint("cut", i)), filepath.Join(top, fmt.Sprint("after", i))
		relaytest.CopyDisk(t, image, cut)
		mountImage(t, cut, after)
		var got []string
		names, _ := filepath.Glob(filepath.Join(after, "bob", "new", "*"))
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Error(err)
			}
			got = append(got, string(text))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("after letter %d the disk has %d letters, %d octets",
				i, len(got), len(strings.Join(got, "")))
		}
	}
}

func mountImage(t *testing.T, image, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "ext4", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
