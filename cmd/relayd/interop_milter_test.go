//go:build interop

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// openDKIM is a running OpenDKIM that signs what it is handed as a milter.
type openDKIM struct {
	t    *testing.T
	addr string
}

// startOpenDKIM starts one that signs for foreign.test in these canonical forms.
func startOpenDKIM(t *testing.T, o *office, forms string) *openDKIM {
	t.Helper()
	port := freePort()
	conf := o.write(fmt.Sprintf("sign%d.conf", port), fmt.Sprintf("Mode s\nDomain foreign.test\nSelector rsa\nKeyFile %s\nCanonicalization %s\nSignatureAlgorithm rsa-sha256\n"+
		"Socket inet:%d@127.0.0.1\nUMask 077\nRequireSafeKeys no\nInternalHosts 127.0.0.1\n", o.path("rsa.key"), forms, port))
	cmd := exec.CommandContext(t.Context(), "/usr/sbin/opendkim", "-f", "-x", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &openDKIM{t, fmt.Sprintf("127.0.0.1:%d", port)}
}

// sign plays the mail server's part of the milter protocol for one letter and returns the letter with
// the field that OpenDKIM wants in front.
func (d *openDKIM) sign(letter string) string {
	d.t.Helper()
	var conn net.Conn
	var err error
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if conn, err = net.Dial("tcp", d.addr); err == nil {
			break
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	ask := func(command byte, data string) (byte, []byte) {
		d.send(conn, command, data)
		return d.receive(conn)
	}
	ask('O', "\x00\x00\x00\x02\x00\x00\x01\xff\x00\x00\x00\x00")
	ask('C', "client\x004\x00\x19127.0.0.1\x00")
	ask('H', "client\x00")
	ask('M', "<x@foreign.test>\x00")
	ask('R', "<ann@office.test>\x00")
	head, body, _ := strings.Cut(letter, "\r\n\r\n")
	for _, field := range strings.Split(strings.NewReplacer("\r\n ", "\n ", "\r\n\t", "\n\t").Replace(head), "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		ask('L', name+"\x00"+strings.TrimPrefix(value, " ")+"\x00")
	}
	ask('N', "")
	for len(body) > 0 {
		n := min(len(body), 65535)
		ask('B', body[:n])
		body = body[n:]
	}
	d.send(conn, 'E', "")
	for {
		answer, data := d.receive(conn)
		if answer == 'i' { // insert a field: its place, name and value
			name, value, _ := strings.Cut(string(bytes.TrimRight(data[4:], "\x00")), "\x00")
			return name + ": " + strings.ReplaceAll(strings.TrimPrefix(value, " "), "\n", "\r\n") + "\r\n" + letter
		}
		if answer == 'a' || answer == 'c' || answer == 't' || answer == 'r' {
			d.t.Fatalf("opendkim signs nothing, and answers %q", answer)
		}
	}
}

func (d *openDKIM) send(w io.Writer, command byte, data string) {
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(data)))
	if _, err := w.Write(append(append(packet, command), data...)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *openDKIM) receive(r io.Reader) (byte, []byte) {
	d.t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		d.t.Fatal(err)
	}
	data := make([]byte, min(binary.BigEndian.Uint32(size[:]), 1<<20))
	if _, err := io.ReadFull(r, data); err != nil {
		d.t.Fatal(err)
	}
	return data[0], data[1:]
}
