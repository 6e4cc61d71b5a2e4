package durable_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"relayd/relay/durable"
	"relayd/relay/relaytest"
)

// mount mounts something for a test, which is skipped where that is not allowed.
func mount(t *testing.T, what, dir, kind, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", kind, "-o", options, what, dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// format makes an ext4 of 32 MiB in a file; features are what -O of mkfs.ext4 takes.
func format(t *testing.T, image, features string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-O", features, "-E", "nodiscard", image)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
}

func flusher(t *testing.T, dir string) *durable.Flusher {
	t.Helper()
	f, err := durable.NewFlusher(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func create(t *testing.T, name string, text []byte) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	return f
}

// What one writer has flushed is there, under its new name, on a disk that is cut off at that moment,
// whether the file system has a journal or not.
func TestFlushSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	for _, features := range []string{"has_journal", "^has_journal"} {
		t.Run(features, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			image, dir, after := filepath.Join(top, "image"), filepath.Join(top, "disk"), filepath.Join(top, "after")
			format(t, image, features)
			mount(t, image, dir, "ext4", "loop")
			f := flusher(t, dir)
			text := bytes.Repeat([]byte("letter\n"), 1500)
			for _, sub := range []string{"tmp", "new", "other"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			letter := create(t, filepath.Join(dir, "tmp", "a"), text)
			if err := os.Link(letter.Name(), filepath.Join(dir, "other", "a")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(letter.Name(), filepath.Join(dir, "new", "a")); err != nil {
				t.Fatal(err)
			}
			dirs := []string{filepath.Join(dir, "new"), filepath.Join(dir, "other"), dir}
			if err := f.Flush(t.Context(), durable.Write{Files: []*os.File{letter}, Dirs: dirs}); err != nil {
				t.Fatal(err)
			}
			single := create(t, filepath.Join(dir, "tmp", "b"), text)
			if err := os.Rename(single.Name(), filepath.Join(dir, "new", "b")); err != nil {
				t.Fatal(err)
			}
			if err := f.Flush(t.Context(), durable.Write{Files: []*os.File{single}, Dirs: dirs[:1]}); err != nil {
				t.Fatal(err)
			}
			cut := filepath.Join(top, "cut")
			relaytest.CopyDisk(t, image, cut)
			mount(t, cut, after, "ext4", "loop")
			for _, name := range []string{"new/a", "other/a", "new/b"} {
				if got, err := os.ReadFile(filepath.Join(after, name)); err != nil || !bytes.Equal(got, text) {
					t.Errorf("%s: %d octets, %v", name, len(got), err)
				}
			}
		})
	}
}

// The kernel reports a failed write to the first flush after it. Whoever is in the next one has lost
// octets all the same.
func TestFlushTellsEverybodyOfLostWrites(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	below, dir := filepath.Join(top, "below"), filepath.Join(top, "disk")
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	mount(t, "tmpfs", below, "tmpfs", "size=8M") // for 32 MiB: writing fails in the end
	image := filepath.Join(below, "image")
	format(t, image, "^has_journal")
	mount(t, image, dir, "ext4", "loop")
	f := flusher(t, dir)
	var letters []*os.File
	for _, name := range []string{"a", "b", "c"} {
		letters = append(letters, create(t, filepath.Join(dir, name), bytes.Repeat([]byte(name), 200_000)))
	}
	eater := create(t, filepath.Join(below, "eater"), nil)
	for {
		if _, err := eater.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	for _, letter := range letters {
		if err := f.Flush(t.Context(), durable.Write{Files: []*os.File{letter}, Dirs: []string{dir}}); err == nil {
			t.Errorf("%s was flushed, and the disk has not got it", letter.Name())
		}
	}
}

// A file system that an error has made read-only keeps nothing more, and syncfs says that all is well.
func TestFlushOnReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "disk")
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	mount(t, "tmpfs", dir, "tmpfs", "size=1M")
	f := flusher(t, dir)
	if err := f.Flush(t.Context(), durable.Write{Dirs: []string{dir}}); err != nil {
		t.Error(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := f.Flush(t.Context(), durable.Write{Dirs: []string{dir}}); err == nil {
		t.Error("flushed")
	}
}
