//go:build peers

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/durable"
)

// The bare servers do as little as an SMTP server can and keep letters by the storage design that
// relayd chose: a file and a name made durable by durable.Flusher, or the queue's body file and
// record. What they reach is the limit of the design. They run in a process of their own: this
// test, started again with RELAYD_BARE set to DESIGN ADDRESS DIRECTORY.
func TestBareServer(t *testing.T) {
	var design, addr, dir string
	if n, _ := fmt.Sscan(os.Getenv("RELAYD_BARE"), &design, &addr, &dir); n != 3 {
		t.Skip("a helper process of TestPeersSMTP")
	}
	flush, err := durable.NewFlusher(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &bareServer{keep: bareFiles(dir, flush)}
	if design == "queue" {
		q, err := queue.Open(filepath.Join(dir, "queue"), queue.Options{Flush: flush})
		if err != nil {
			t.Fatal(err)
		}
		b.keep = bareQueue(q)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go b.session(c)
	}
}

type bareServer struct {
	keep func(id relay.ID, letter []byte) error
}

func bareFiles(dir string, flush *durable.Flusher) func(relay.ID, []byte) error {
	return func(id relay.ID, letter []byte) error {
		name := filepath.Join(dir, string(id))
		f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(letter); err != nil {
			return err
		}
		if err := os.Rename(name+".tmp", name); err != nil {
			return err
		}
		return flush.Flush(context.Background(), durable.Write{Files: []*os.File{f}, Dirs: []string{dir}})
	}
}

func bareQueue(q *queue.Queue) func(relay.ID, []byte) error {
	return func(id relay.ID, letter []byte) error {
		env := relay.Envelope{ID: id, Accepted: time.Now(), Rcpts: []relay.Recipient{{Addr: relay.Address{Local: "bob", Domain: "sink.test"}}}}
		s, err := q.Stage(context.Background(), env)
		if err != nil {
			return err
		}
		if _, err := s.Write(letter); err != nil {
			return err
		}
		return s.Commit(context.Background())
	}
}

func (b *bareServer) session(c net.Conn) {
	defer c.Close()
	r, w := bufio.NewReaderSize(c, 32<<10), bufio.NewWriter(c)
	io.WriteString(w, "220 bare\r\n")
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte("DATA")):
			if !b.letter(r, w) {
				return
			}
		case bytes.HasPrefix(line, []byte("QUIT")):
			io.WriteString(w, "221 bye\r\n")
			w.Flush()
			return
		default:
			io.WriteString(w, "250 ok\r\n")
		}
	}
}

func (b *bareServer) letter(r *bufio.Reader, w *bufio.Writer) bool {
	io.WriteString(w, "354 go\r\n")
	if w.Flush() != nil {
		return false
	}
	var letter []byte
	for !bytes.HasSuffix(letter, []byte("\r\n.\r\n")) {
		line, err := r.ReadSlice('\n')
		if letter = append(letter, line...); err != nil && err != bufio.ErrBufferFull {
			return false
		}
	}
	id := relay.NewID(time.Now())
	if err := b.keep(id, letter[:len(letter)-3]); err != nil {
		fmt.Fprintf(w, "451 %s\r\n", strings.ReplaceAll(err.Error(), "\n", " "))
		return true
	}
	fmt.Fprintf(w, "250 queued as %s\r\n", id)
	return true
}

// startBare runs a bare server and returns when it answers.
func startBare(t *testing.T, design string) *mailServer {
	dir, addr := serverDir(t), fmt.Sprintf("127.0.0.1:%d", freePort())
	s := &mailServer{name: "bare design", addr: addr}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, filepath.Join(dir, "log"), []string{"RELAYD_BARE=" + design + " " + addr + " " + dir}, dir, self, "-test.run=^TestBareServer$")
	return s
}
