package admin_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"relayd/relay/admin"
)

// Even where somebody made the socket open to all, only root and our own user get an answer.
func TestForeignPeerGetsNoAnswer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := t.TempDir()
	serve(t, admin.Config{DataDir: dir, Queue: &memory{}})
	path := filepath.Join(dir, admin.SocketName)
	for name, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := askAs(0, path); n <= 0 || err != nil {
		t.Errorf("root: %d octets, %v", n, err)
	}
	// No permission would be the file system's word, not ours.
	if n, err := askAs(65534, path); n > 0 || errors.Is(err, os.ErrPermission) {
		t.Errorf("nobody: %d octets, %v", n, err)
	}
}

// askAs sends a request as another user and counts the octets of the answer. The user is changed
// for one thread alone, which ends with its goroutine.
func askAs(uid int, path string) (n int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		n, err = ask(uid, path)
	}()
	<-done
	return n, err
}

func ask(uid int, path string) (int, error) {
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		return 0, errno
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return 0, err
	}
	request := []byte("GET /v1/stats HTTP/1.0\r\n\r\n")
	if err := unix.Sendto(fd, request, unix.MSG_NOSIGNAL, nil); err != nil {
		return 0, err
	}
	return unix.Read(fd, make([]byte, 1000))
}
