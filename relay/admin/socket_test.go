package admin_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"relayd/relay/admin"
)

func listen(t *testing.T, dir string) net.Listener {
	t.Helper()
	ln, err := admin.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// The mode is the socket's own, whatever the umask says, and nothing but the socket is left. Not
// parallel: the umask belongs to the whole process.
func TestSocketIsPrivate(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	listen(t, dir)
	info, err := os.Stat(filepath.Join(dir, admin.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket of 0600", info.Mode())
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".control*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestSocketOfACrashIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, admin.SocketName)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := admin.Dial(dir); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("dial: %v, want ErrNotRunning", err)
	}
	listen(t, dir)
	if c, err := admin.Dial(dir); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestSocketInUse(t *testing.T) {
	dir := t.TempDir()
	listen(t, dir)
	if _, err := admin.Listen(dir); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if _, err := admin.Dial(dir); err != nil {
		t.Errorf("the first one does not answer any more: %v", err)
	}
}

// What is not a socket is somebody's file.
func TestSocketFileInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, admin.SocketName)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(dir); err == nil {
		t.Error("listened over a file")
	}
	if got, _ := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("the file now holds %q", got)
	}
}

func TestSocketCloseRemovesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, admin.SocketName)
	first := listen(t, dir)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := listen(t, dir)
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
	second.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v, want none", err)
	}
}

// A path longer than sun_path works at both ends.
func TestSocketLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, _ := serve(t, admin.Config{DataDir: dir, Queue: &memory{}})
	if _, err := c.Status(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := admin.Listen(dir); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

func TestDialNobody(t *testing.T) {
	if _, err := admin.Dial(t.TempDir()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
}
