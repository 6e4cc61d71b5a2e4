//go:build peers

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// TestPeersPOP3 prints how relayd and Dovecot serve the same letters: each has folders of its own
// whose names are links to the same files, and both check the same password hashes.
func TestPeersPOP3(t *testing.T) {
	ours := startRelayd(t, freePort())
	theirs := startDovecot(t, filepath.Join(ours.dir, "data/users"))
	r := &popRun{t: t, ours: ours, theirs: theirs}
	r.paper = newPaper(t, "POP3: relayd and Dovecot side by side", ours.version, theirs.version+" as shipped by Debian")
	r.fill()
	out := newTable(fmt.Sprintf("%d letters of 10 KiB", *peersDrop), "relayd", "Dovecot", "ratio")
	r.login(out)
	r.open(out)
	r.retrieve(out)
	r.users(out)
	r.remove(out)
	r.paper.table("POP3 (open is login, STAT, LIST and UIDL; its memory and CPU are those of the whole server; ratios are relayd / Dovecot).", out)
}

type popRun struct {
	t            *testing.T
	paper        *paper
	ours, theirs *mailServer
}

const manyUsers = 20

// fill sends the letters once and links them into every maildir: user0's holds all of them, those
// of the other twenty a tenth each.
func (r *popRun) fill() {
	l := relaytest.Load{Addr: r.ours.addr, Sessions: 50, Letters: *peersDrop, Size: letterSize, Rcpt: to(peerUser(0) + "@office.test")}
	if _, err := l.Run(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	owner := ownerOf(r.t, "nobody")
	r.link("", filepath.Join(r.theirs.dir, "mail", slowUser), nil, owner.uid)
	all := r.ours.inbox(peerUser(0))
	names, err := os.ReadDir(all)
	if err != nil {
		r.t.Fatal(err)
	}
	for user := range manyUsers + 1 {
		mine := names
		if user > 0 {
			mine = names[:len(names)/10]
			r.link(all, filepath.Dir(r.ours.inbox(peerUser(user))), mine, -1)
		}
		r.link(all, filepath.Join(r.theirs.dir, "mail", peerUser(user)), mine, owner.uid)
	}
}

func (r *popRun) link(from, maildir string, names []fs.DirEntry, uid int) {
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		dir := filepath.Join(maildir, sub)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, uid, -1)); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, name := range names {
		file := filepath.Join(maildir, "new", name.Name())
		if err := errors.Join(os.Link(filepath.Join(from, name.Name()), file), os.Chown(file, uid, -1)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// of measures both servers and adds the row.
func (r *popRun) of(out *table, name string, unit func(time.Duration) any, f func(s *mailServer) time.Duration) {
	r.t.Helper()
	ours, theirs := f(r.ours), f(r.theirs)
	a, b := unit(ours), unit(theirs)
	ratio := over(ours.Seconds(), theirs.Seconds())
	if _, isRate := a.(rate); isRate {
		ratio = over(theirs.Seconds(), ours.Seconds())
	}
	out.add(name, a, b, ratio)
}

func asTime(d time.Duration) any { return d }

func megabytes(octets int64) func(time.Duration) any {
	return func(d time.Duration) any { return rate(float64(octets) / 1e6 / d.Seconds()) }
}

// session logs in, and returns how many letters there are.
func (r *popRun) session(s *mailServer, user int) (*popClient, int) {
	c, n, err := openPop(s.pop3, peerUser(user))
	if err != nil {
		r.t.Fatalf("%s: %v", s.name, err)
	}
	return c, n
}

func (r *popRun) quit(s *mailServer, c *popClient) {
	c.command("QUIT")
	if err := c.close(); err != nil {
		r.t.Fatalf("%s: %v", s.name, err)
	}
}

// login is what a password costs: relayd remembers a proof of those that were right.
func (r *popRun) login(out *table) {
	once := func(s *mailServer) time.Duration {
		begin := time.Now()
		c, _, err := openPop(s.pop3, slowUser)
		if err != nil {
			r.t.Fatalf("%s: %v", s.name, err)
		}
		took := time.Since(begin)
		r.quit(s, c)
		return took
	}
	r.of(out, "login, argon2id of 64 MiB, the first time", asTime, once)
	r.of(out, "login, argon2id of 64 MiB, again", asTime, once)
}

func (r *popRun) open(out *table) {
	once := func(s *mailServer) time.Duration {
		begin := time.Now()
		c, n := r.session(s, 0)
		c.list(n)
		took := time.Since(begin)
		r.quit(s, c)
		return took
	}
	r.of(out, "open, the first time", asTime, once)
	r.of(out, "open, warm", asTime, func(s *mailServer) time.Duration { return median(9, func() time.Duration { return once(s) }) })
	r.of(out, "of it the login (a hash that costs nothing)", asTime, func(s *mailServer) time.Duration {
		return median(9, func() time.Duration {
			begin := time.Now()
			c, _ := r.session(s, manyUsers) // of fewer letters
			took := time.Since(begin)
			r.quit(s, c)
			return took
		})
	})
	if dropCaches() == nil {
		r.of(out, "open, nothing in the page cache", asTime, func(s *mailServer) time.Duration {
			dropCaches()
			return once(s)
		})
	}
}

func median(n int, f func() time.Duration) time.Duration {
	var all []time.Duration
	for range n {
		all = append(all, f())
	}
	slices.Sort(all)
	return all[n/2]
}

func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200)
}

func (r *popRun) retrieve(out *table) {
	maildir := filepath.Dir(r.ours.inbox(peerUser(0)))
	if _, err := readAll(maildir); err != nil { // into the page cache
		r.t.Fatal(err)
	}
	var octets int64
	cpu := map[string]cost{}
	all := func(command string, ahead int) func(*mailServer) time.Duration {
		return func(s *mailServer) time.Duration {
			c, n := r.session(s, 0)
			w := s.tree.watch()
			octets = c.each(command, n, ahead)
			spent := w.end()
			r.quit(s, c)
			cpu[s.name] = spent
			return spent.took
		}
	}
	size := func(d time.Duration) any { return megabytes(octets)(d) }
	r.of(out, "RETR of all one by one, MB/s", size, all("RETR %d\r\n", 1))
	r.of(out, "RETR of all 16 ahead, MB/s", size, all("RETR %d\r\n", 16))
	a, b := cpu[r.ours.name], cpu[r.theirs.name]
	out.add("CPU of that", a.cpu, b.cpu, over(a.cpu.Seconds(), b.cpu.Seconds()))
	out.add("memory meanwhile", octet(a.peak), octet(b.peak), over(float64(a.peak), float64(b.peak)))
	begin := time.Now()
	n, err := readAll(maildir)
	if err != nil {
		r.t.Fatal(err)
	}
	out.add("limit: a bare loop of reads and writes, MB/s", megabytes(n)(time.Since(begin)), "", "")
	r.of(out, "TOP 0 of all, 16 ahead", asTime, all("TOP %d 0\r\n", 16))
}

// users has twenty of them collect at once.
func (r *popRun) users(out *table) {
	var slowest time.Duration
	var octets atomic.Int64
	opens := map[string]time.Duration{}
	r.of(out, "RETR of all by 20 users at once, 16 ahead, MB/s", func(d time.Duration) any { return megabytes(octets.Load())(d) },
		func(s *mailServer) time.Duration {
			octets.Store(0)
			begin := time.Now()
			took := make([]time.Duration, manyUsers)
			var wg sync.WaitGroup
			for user := range manyUsers {
				wg.Go(func() {
					c, n, err := openPop(s.pop3, peerUser(user+1))
					if err != nil {
						r.t.Errorf("%s: %v", s.name, err)
						return
					}
					c.list(n)
					took[user] = time.Since(begin)
					octets.Add(c.each("RETR %d\r\n", n, 16))
					c.command("QUIT")
					if err := c.close(); err != nil {
						r.t.Errorf("%s: %v", s.name, err)
					}
				})
			}
			wg.Wait()
			slowest = slices.Max(took)
			opens[s.name] = slowest
			return time.Since(begin)
		})
	a, b := opens[r.ours.name], opens[r.theirs.name]
	out.add("open of the slowest of the 20", a, b, over(a.Seconds(), b.Seconds()))
}

func (r *popRun) remove(out *table) {
	r.of(out, "DELE of all and QUIT", asTime, func(s *mailServer) time.Duration {
		c, n := r.session(s, 0)
		begin := time.Now()
		c.ahead("DELE %d\r\n", n, 16, c.line)
		r.quit(s, c)
		took := time.Since(begin)
		maildir := filepath.Dir(r.ours.inbox(peerUser(0)))
		if s == r.theirs {
			maildir = filepath.Join(s.dir, "mail", peerUser(0))
		}
		if left := fileCount(filepath.Join(maildir, "new")) + fileCount(filepath.Join(maildir, "cur")); left != 0 {
			r.t.Errorf("%s: %d letters are left", s.name, left)
		}
		return took
	})
}

// popClient asks and counts, as fast as a client can; it keeps its first error.
type popClient struct {
	conn net.Conn
	r    *bufio.Reader
	last string // the last reply of one line
	err  error
}

func openPop(addr, user string) (c *popClient, letters int, err error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, 0, err
	}
	c = &popClient{conn: conn, r: bufio.NewReaderSize(conn, 256<<10)}
	c.line()
	c.command("USER " + user + "@office.test")
	c.command("PASS " + benchPassword)
	if _, err := fmt.Sscanf(c.command("STAT"), "+OK %d", &letters); err != nil && c.err == nil {
		c.err = err
	}
	return c, letters, c.err
}

func (c *popClient) close() error {
	c.conn.Close()
	return c.err
}

func (c *popClient) say(text string) {
	if c.err == nil {
		c.conn.SetDeadline(time.Now().Add(3 * patience))
		_, c.err = c.conn.Write([]byte(text))
	}
}

func (c *popClient) command(text string) string {
	c.say(text + "\r\n")
	c.line()
	return c.last
}

func (c *popClient) list(n int) {
	for _, command := range []string{"LIST\r\n", "UIDL\r\n"} {
		c.say(command)
		if octets := c.many(); octets < int64(n)*5 && c.err == nil {
			c.err = fmt.Errorf("%q of %d letters has only %d octets", command, n, octets)
		}
	}
}

// line reads a reply of one line.
func (c *popClient) line() int64 {
	if c.err != nil {
		return 0
	}
	c.last, c.err = c.r.ReadString('\n')
	if c.err == nil && !strings.HasPrefix(c.last, "+OK") {
		c.err = fmt.Errorf("the server says %q", c.last)
	}
	return int64(len(c.last))
}

var popEnd = []byte("\r\n.\r\n")

// many reads a reply that ends with a dot, and counts its octets.
func (c *popClient) many() (octets int64) {
	for first := true; c.err == nil; first = false {
		b, err := c.r.Peek(max(len(popEnd), c.r.Buffered()))
		if err != nil {
			c.err = err
		} else if first && b[0] != '+' {
			c.err = fmt.Errorf("the server says %q", b)
		}
		n := len(b) - len(popEnd) + 1
		i := bytes.Index(b, popEnd)
		if i >= 0 {
			n = i + len(popEnd)
		}
		c.r.Discard(n)
		if octets += int64(n); i >= 0 {
			break
		}
	}
	return octets
}

func (c *popClient) each(command string, n, ahead int) int64 {
	return c.ahead(command, n, ahead, c.many)
}

// ahead gives the command for every letter, so many of them before the answer to the first.
func (c *popClient) ahead(command string, n, ahead int, answer func() int64) (octets int64) {
	var first strings.Builder
	for i := range min(ahead, n) {
		fmt.Fprintf(&first, command, i+1)
	}
	c.say(first.String())
	for i := range n {
		if octets += answer(); c.err != nil {
			break
		}
		if next := i + 1 + ahead; next <= n {
			c.say(fmt.Sprintf(command, next))
		}
	}
	return octets
}
