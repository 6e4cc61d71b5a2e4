package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// The benchmarks drive the real daemon over loopback from this process, so on a small machine
// client and server share the processors. Beside every rate stands the ratio to what the same
// file system does in the same run with the same number of writers and nothing else: create, write,
// fsync, rename, fsync the directory.
const benchConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
pop3 = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[trust]
networks = ["127.0.0.0/8"]
[dns]
servers = [%q]
[outbound]
port = %d
allow_loopback = true
[log]
level = "warn"
[limits]
connections_per_address = 1000
min_free_disk = "1MB"
`

// benchZone has times to live, and says with its SOA how long a negative answer holds, as zones do:
// without them every letter would cost a question.
const benchZone = `
	sink.test.    3600 SOA ns.sink.test. hostmaster.sink.test. 1 3600 600 86400 3600
	sink.test.    3600 MX 10 mx.sink.test.
	mx.sink.test. 3600 A 127.0.0.2
`

// benchOffice starts a daemon whose foreign mail goes to 127.0.0.2, where something may listen.
func benchOffice(b *testing.B) (d *server, dir string, mxPort int) {
	b.Helper()
	dir = b.TempDir()
	dns := relaytest.ServeDNS(b, benchZone)
	mxPort = freePort()
	config := filepath.Join(dir, "relayd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, benchConfig, dns.Addr(), mxPort), 0o600); err != nil {
		b.Fatal(err)
	}
	add := exec.Command("relayctl", "--config", config, "user", "add", "ann@office.test", "--password-stdin")
	add.Stdin = strings.NewReader("correct horse battery")
	if out, err := add.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	path, err := exec.LookPath("relayd")
	if err != nil {
		b.Fatal(err)
	}
	if d, err = launch(path, dir, "--config", config); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.stop(); err != nil {
			b.Errorf("%v\n%s", err, d.log.String())
		}
	})
	return d, dir, mxPort
}

var (
	benchSizes = []struct {
		name string
		size int
	}{{"2KiB", 2 << 10}, {"10KiB", 10 << 10}, {"1MiB", 1 << 20}}
	benchSessions = []int{1, 10, 50}
)

// BenchmarkAccept is letters a second from MAIL to the 250 that promises them: into a maildir, and
// into the queue for a destination that is dead.
func BenchmarkAccept(b *testing.B) {
	for _, route := range []struct{ name, rcpt string }{{"maildir", "ann@office.test"}, {"queue", "bob@sink.test"}} {
		for _, s := range benchSizes {
			for _, sessions := range benchSessions {
				b.Run(fmt.Sprintf("%s/%s/%d", route.name, s.name, sessions), func(b *testing.B) {
					d, dir, _ := benchOffice(b)
					b.ResetTimer()
					r, err := relaytest.Load{
						Addr: d.addrs["smtp"], Sessions: min(sessions, b.N), Letters: b.N, Size: s.size,
						Rcpt: func(int) []string { return []string{route.rcpt} },
					}.Run(b.Context())
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					report(b, r, dir, sessions, s.size)
				})
			}
		}
	}
}

func report(b *testing.B, r relaytest.LoadResult, dir string, writers, size int) {
	limit := diskLimit(b, dir, writers, size)
	b.ReportMetric(r.PerSecond(), "letters/s")
	b.ReportMetric(limit, "disk/s")
	b.ReportMetric(r.PerSecond()/limit, "of-disk")
	b.ReportMetric(float64(r.P99.Microseconds())/1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// diskLimit is how many files a second the machine makes durable: create, write, fsync, rename,
// fsync of the directory, by so many writers at once.
func diskLimit(b testing.TB, dir string, writers, size int) float64 {
	b.Helper()
	dir = filepath.Join(dir, "limit")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, size)
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for w := range writers {
		wg.Go(func() {
			for i := 0; time.Since(start) < 500*time.Millisecond; i++ {
				if err := durableFile(filepath.Join(dir, fmt.Sprintf("%d-%d", w, i)), data); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

func durableFile(name string, data []byte) error {
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// BenchmarkRelay is letters a second from MAIL here to the sink's 250 there.
func BenchmarkRelay(b *testing.B) {
	for _, sessions := range benchSessions {
		b.Run(fmt.Sprintf("10KiB/%d", sessions), func(b *testing.B) {
			d, dir, mxPort := benchOffice(b)
			sink, err := relaytest.NewSink(fmt.Sprintf("127.0.0.2:%d", mxPort))
			if err != nil {
				b.Fatal(err)
			}
			defer sink.Close()
			b.ResetTimer()
			start := time.Now()
			r, err := relaytest.Load{
				Addr: d.addrs["smtp"], Sessions: min(sessions, b.N), Letters: b.N, Size: 10 << 10,
				Rcpt: func(int) []string { return []string{"bob@sink.test"} },
			}.Run(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if err := sink.Wait(b.Context(), b.N); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			r.Took = time.Since(start)
			report(b, r, dir, sessions, 10<<10)
		})
	}
}

// BenchmarkPOP3 is what collecting a maildrop of 10,000 letters costs: opening it (login, STAT,
// LIST, UIDL), and RETR of all of them, pipelined by 16.
func BenchmarkPOP3(b *testing.B) {
	const letters, size = 10_000, 10 << 10
	d, dir, _ := benchOffice(b)
	_, err := relaytest.Load{
		Addr: d.addrs["smtp"], Sessions: 50, Letters: letters, Size: size,
		Rcpt: func(int) []string { return []string{"ann@office.test"} },
	}.Run(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if p, err := openDrop(d.addrs["pop3"]); err != nil {
				b.Fatal(err)
			} else {
				p.pop("LIST")
				p.pop("UIDL")
				p.pop("QUIT")
				p.Close()
			}
		}
	})
	b.Run("retr", func(b *testing.B) {
		for b.Loop() {
			n, err := retrieveAll(d.addrs["pop3"], letters)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(n)
		}
	})
	b.Run("limit", func(b *testing.B) {
		for b.Loop() {
			n, err := readAll(filepath.Join(dir, "data/mail/office.test/ann"))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(n)
		}
	})
}

func openDrop(addr string) (*dialogue, error) {
	p, err := dial(addr)
	if err != nil {
		return nil, err
	}
	p.expect("+OK")
	p.pop("USER ann@office.test")
	p.pop("PASS correct horse battery")
	if reply := p.pop("STAT"); !strings.HasPrefix(reply, "+OK") {
		return nil, fmt.Errorf("STAT: %s", reply)
	}
	return p, p.err
}

// retrieveAll asks for every letter, 16 ahead, and counts the octets that come.
func retrieveAll(addr string, letters int) (octets int64, err error) {
	p, err := openDrop(addr)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	ahead := make(chan struct{}, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		w := bufio.NewWriter(p.Conn)
		for n := 1; n <= letters; n++ {
			ahead <- struct{}{}
			fmt.Fprintf(w, "RETR %d\r\n", n)
			w.Flush()
		}
	})
	defer wg.Wait()
	for range letters {
		for {
			line, err := p.r.ReadSlice('\n')
			if err != nil {
				return octets, err
			}
			if octets += int64(len(line)); string(line) == ".\r\n" {
				break
			}
		}
		<-ahead
	}
	// The next session is let in when this one has left.
	p.pop("QUIT")
	return octets, p.err
}

// readAll is the bare loop of file reads and socket writes that RETR cannot beat.
func readAll(maildir string) (octets int64, err error) {
	names, err := filepath.Glob(maildir + "/*/*")
	if err != nil {
		return 0, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return octets, err
		}
		n, err := c.Write(data)
		if octets += int64(n); err != nil {
			return octets, err
		}
	}
	return octets, nil
}
