package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// server is a relayd that a test started. Its service manager is the test, so that nothing has
// to be polled: the daemon says READY=1 and names its listeners.
type server struct {
	cmd    *exec.Cmd
	notify *net.UnixConn
	addrs  map[string]string // service to address
	log    bytes.Buffer      // what it said; read it only after it ended
}

// patience bounds every wait of a test.
const patience = 20 * time.Second

// sockets counts the abstract socket names of this process.
var sockets atomic.Int64

// launch starts path in dir and returns when it is ready.
func launch(path, dir string, args ...string) (*server, error) {
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	return launchCommand(cmd)
}

// launchCommand starts a command that becomes relayd and returns when it is ready.
func launchCommand(cmd *exec.Cmd) (*server, error) {
	name := fmt.Sprintf("@relayd-test-%d-%d", os.Getpid(), sockets.Add(1))
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	d := &server{cmd: cmd, notify: conn, addrs: map[string]string{}}
	d.cmd.Env = append(d.cmd.Environ(), "NOTIFY_SOCKET="+name)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := d.cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	if err := d.await("READY=1"); err != nil {
		d.kill()
		return nil, fmt.Errorf("%w; relayd said:\n%s", err, d.log.String())
	}
	return d, nil
}

// await reads what the daemon tells its service manager until it says state.
func (d *server) await(state string) error {
	buf := make([]byte, 64<<10)
	d.notify.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := d.notify.Read(buf)
		if err != nil {
			return fmt.Errorf("waiting for relayd to say %s: %w", state, err)
		}
		said := string(buf[:n])
		for line := range strings.Lines(said) {
			if status, ok := strings.CutPrefix(strings.TrimSpace(line), "STATUS="); ok {
				for word := range strings.FieldsSeq(status) {
					if key, value, ok := strings.Cut(word, "="); ok {
						d.addrs[key] = value
					}
				}
			}
		}
		if strings.Contains(said, state) {
			return nil
		}
	}
}

// stop ends the daemon as a service manager does and wants exit status 0.
func (d *server) stop() error {
	defer d.notify.Close()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.cmd.Wait()
}

// kill ends the daemon as a crash does.
func (d *server) kill() {
	defer d.notify.Close()
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// reload asks for a reload and returns when it is over.
func (d *server) reload() error {
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	if err := d.await("RELOADING=1"); err != nil {
		return err
	}
	return d.await("READY=1")
}
