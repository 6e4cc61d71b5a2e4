package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the name of the control socket in the data directory.
const SocketName = "control.sock"

// maxSocketPath is what fits into sun_path with its closing NUL (unix(7)).
const maxSocketPath = 107

// dialTimeout is for the connect alone: a unix socket is there or it is not.
const dialTimeout = 5 * time.Second

var (
	// ErrInUse: another process answers on the control socket.
	ErrInUse = errors.New("another relayd is running with this data directory")
	// ErrNotRunning: nobody listens on the control socket, or there is none.
	ErrNotRunning = errors.New("relayd is not running")
)

// Listen makes the control socket in dataDir, which must exist. A socket left behind by a crash
// is replaced, but only after a connect to it has been refused; one that answers is ErrInUse.
// Closing the listener removes the socket.
func Listen(dataDir string) (net.Listener, error) {
	path := filepath.Join(dataDir, SocketName)
	if err := checkStale(dataDir, path); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	ln, err := listenPrivate(dataDir, path)
	if err != nil {
		return nil, fmt.Errorf("admin: listen on %s: %w", path, err)
	}
	return ln, nil
}

// checkStale says whether path may be replaced: it is absent, or a socket nobody answers on.
func checkStale(dataDir, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is in the way and is not a socket", path)
	}
	conn, err := dialSocket(context.Background(), dataDir)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// listenPrivate binds in a fresh directory of mode 0700 and renames the socket into its place
// when its own mode is 0600: bind(2) makes it with the umask's mode, and changing the umask would
// change it for every other goroutine that makes a file at that moment.
func listenPrivate(dataDir, path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(dataDir, ".control-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var ln *net.UnixListener
	err = withShortPath(dir, SocketName, func(short string) error {
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	// The name it was bound to is about to change; socketListener removes the right one.
	ln.SetUnlinkOnClose(false)
	private := filepath.Join(dir, SocketName)
	info, err := settle(private, path)
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &socketListener{UnixListener: ln, path: path, info: info}, nil
}

// settle gives the socket its mode and its final name.
func settle(private, path string) (os.FileInfo, error) {
	if err := os.Chmod(private, 0o600); err != nil {
		return nil, err
	}
	info, err := os.Lstat(private)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(private, path)
}

// socketListener removes its socket when it is closed.
type socketListener struct {
	*net.UnixListener
	path string
	info os.FileInfo
}

// Close removes the socket only while it is still ours: a successor may have put its own there.
func (l *socketListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// dialSocket connects to the control socket of dataDir.
func dialSocket(ctx context.Context, dataDir string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	var conn net.Conn
	err := withShortPath(dataDir, SocketName, func(short string) error {
		var err error
		conn, err = d.DialContext(ctx, "unix", short)
		return err
	})
	return conn, err
}

// withShortPath calls f with a name for dir/name that fits into sun_path. A longer one goes by way
// of the descriptor of its directory, which /proc gives a short name.
func withShortPath(dir, name string, f func(short string) error) error {
	path := filepath.Join(dir, name)
	if len(path) <= maxSocketPath {
		return f(path)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}

// peerUID is the user at the other end of a unix socket (SO_PEERCRED, unix(7)).
func peerUID(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("admin: %T has no descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return -1, err
	}
	return int(cred.Uid), nil
}
