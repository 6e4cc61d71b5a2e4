package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Sockets that a service manager passed take the place of the addresses in the config, by name,
// so that relayd needs no privilege to serve port 25.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "192.0.2.1:25"
pop3 = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
`
	if err := os.WriteFile(filepath.Join(dir, "relayd.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	path, err := exec.LookPath("relayd")
	if err != nil {
		t.Fatal(err)
	}
	// The manager sets LISTEN_PID between fork and exec; a shell that becomes relayd can.
	start := fmt.Sprintf("LISTEN_FDS=1 LISTEN_FDNAMES=smtp LISTEN_PID=$$ exec %s --config relayd.toml", path)
	s, err := launchCommand(&exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", start}, Dir: dir, ExtraFiles: []*os.File{file}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Errorf("%v\n%s", err, s.log.String())
		}
	}()
	d, err := dial(socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if line := d.reply(); !strings.HasPrefix(line, "220 mail.office.test ") {
		t.Errorf("the passed socket greets with %q", line)
	}
}
