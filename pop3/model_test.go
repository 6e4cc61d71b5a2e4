package pop3_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/delivery/maildir"
	"relayd/pop3"
	"relayd/relay"
	"relayd/relay/durable"
)

// However sessions, deliveries, crashes, dropped links and other programs are interleaved, no
// letter is lost, none comes twice, none is changed, and no unique-id changes or is used again.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"":            m.check,
			"deliver":     m.deliver,
			"abandon":     m.abandon,
			"logIn":       m.logIn,
			"second":      m.second,
			"list":        m.list,
			"retr":        m.retr,
			"dele":        m.dele,
			"rset":        m.rset,
			"quit":        m.quit,
			"drop":        m.drop,
			"dropInQuit":  m.dropInQuit,
			"crash":       m.crash,
			"otherFlags":  m.otherFlags,
			"otherDelete": m.otherDelete,
			"undelete":    m.undelete,
		})
		m.drop(rt)
		m.logIn(rt)
	})
}

// model is a server over a maildir, and what must be in it.
type model struct {
	root  string
	flush *durable.Flusher
	store *maildir.Store
	ln    *pipeListener
	stop  context.CancelFunc
	done  chan error

	count   int               // letters ever
	letters map[string]bool   // the text of each that must be there
	uids    map[string]string // text by unique-id, for ever
	kept    map[string]bool   // the text of each that a session removed
	former  map[string]bool   // the unique-ids of those before they came back

	conn    net.Conn // of the session; nil: none
	r       *bufio.Reader
	shown   []string // the texts of the snapshot
	deleted map[int]bool
}

func newModel(rt *rapid.T) *model {
	root, err := os.MkdirTemp("", "relayd-model")
	if err != nil {
		rt.Fatal(err)
	}
	m := &model{root: root, letters: map[string]bool{}, uids: map[string]string{}, kept: map[string]bool{}, former: map[string]bool{}}
	m.start(rt)
	return m
}

func (m *model) start(rt *rapid.T) {
	var err error
	if m.flush, err = durable.NewFlusher(m.root); err != nil {
		rt.Fatal(err)
	}
	if m.store, err = maildir.Open(m.root, "mail.office.example", m.flush, slog.New(slog.DiscardHandler), maildir.WithUndelete(time.Hour)); err != nil {
		rt.Fatal(err)
	}
	cfg := config(nil)
	cfg.Auth = everybody{}
	store := m.store
	cfg.Open = func(ctx context.Context, a relay.Address, client netip.Addr) (pop3.Maildrop, error) {
		d, err := store.Maildrop(ctx, a)
		if err != nil {
			return nil, err
		}
		d.SetClient(client)
		return d, nil
	}
	s := pop3.New(cfg)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	ln, done := newPipeListener(), make(chan error, 1)
	m.ln, m.done = ln, done
	go func() { done <- s.Serve(ctx, ln, false) }()
}

func (m *model) shut() {
	m.stop()
	<-m.done
	m.store.Close()
	m.flush.Close()
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
}

func (m *model) close() {
	m.shut()
	os.RemoveAll(m.root)
}

// connect opens a connection and logs in; it returns the answer to PASS.
func (m *model) connect(rt *rapid.T) (conn net.Conn, r *bufio.Reader, answer string) {
	conn, theirs := net.Pipe()
	m.ln.conns <- addrConn{theirs, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	r = bufio.NewReader(conn)
	r.ReadString('\n')
	ask(rt, conn, r, "USER ann")
	return conn, r, ask(rt, conn, r, "PASS x")
}

func ask(rt *rapid.T, conn net.Conn, r *bufio.Reader, cmd string) string {
	io.WriteString(conn, cmd+"\r\n")
	line, err := r.ReadString('\n')
	if err != nil {
		rt.Fatalf("%s: %q, %v", cmd, line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (m *model) ask(rt *rapid.T, cmd string) string { return ask(rt, m.conn, m.r, cmd) }

func (m *model) body(rt *rapid.T) string {
	var b strings.Builder
	for {
		line, err := m.r.ReadString('\n')
		if err != nil {
			rt.Fatal(err)
		}
		if line == ".\r\n" {
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

// needs skips an action that has no meaning with or without a session.
func (m *model) needs(rt *rapid.T, session bool) {
	if session != (m.conn != nil) {
		rt.Skip()
	}
}

func (m *model) stage(rt *rapid.T) (relay.Staged, string) {
	m.count++
	filler := rapid.SampledFrom([]string{"", "\r\n", ".\r\n", "..\r\n", "a: b\r\n\r\n.x\r\n", strings.Repeat("long ", 3000) + "\r\n"})
	text := "Subject: " + strconv.Itoa(m.count) + "\r\n" + filler.Draw(rt, "text")
	st, err := m.store.Stage(context.Background(), relay.Envelope{ID: relay.NewID(time.Now()), Accepted: time.Now(),
		Rcpts: []relay.Recipient{{Addr: ann, Mailbox: ann}}})
	if err != nil {
		rt.Fatal(err)
	}
	io.WriteString(st, text)
	return st, text
}

func (m *model) deliver(rt *rapid.T) {
	st, text := m.stage(rt)
	if err := st.Commit(context.Background()); err != nil {
		rt.Fatal(err)
	}
	m.letters[text] = true
}

// abandon is a sender that vanished, with or without a crash of ours at that moment.
func (m *model) abandon(rt *rapid.T) {
	st, _ := m.stage(rt)
	if rapid.Bool().Draw(rt, "crash") {
		m.crash(rt)
		return
	}
	st.Abort()
}

// logIn opens a session and compares all it shows with what must be there.
func (m *model) logIn(rt *rapid.T) {
	m.needs(rt, false)
	var answer string
	m.conn, m.r, answer = m.connect(rt)
	// A session whose link has dropped needs a moment to end.
	for begin := time.Now(); strings.HasPrefix(answer, "-ERR [IN-USE]") && time.Since(begin) < 10*time.Second; {
		m.ask(rt, "USER ann")
		answer = m.ask(rt, "PASS x")
	}
	if !strings.HasPrefix(answer, "+OK") {
		rt.Fatalf("login: %s", answer)
	}
	m.ask(rt, "UIDL")
	uids := strings.Fields(m.body(rt))
	m.shown, m.deleted = nil, map[int]bool{}
	for i := 1; i < len(uids); i += 2 {
		if got := m.ask(rt, "TOP "+uids[i-1]+" 999"); !strings.HasPrefix(got, "+OK") {
			rt.Fatalf("TOP %s: %s", uids[i-1], got)
		}
		text := m.body(rt)
		if known, ok := m.uids[uids[i]]; ok && known != text {
			rt.Fatalf("the unique-id %s of %.20q is now that of %.20q", uids[i], known, text)
		}
		if m.former[uids[i]] {
			rt.Fatalf("%.20q came back under the unique-id %s it had", text, uids[i])
		}
		m.uids[uids[i]] = text
		m.shown = append(m.shown, text)
	}
	if got, want := slices.Sorted(slices.Values(m.shown)), slices.Sorted(maps.Keys(m.letters)); !slices.Equal(got, want) {
		rt.Fatalf("the maildrop shows %.20q, want %.20q", got, want)
	}
	byText := map[string]string{}
	for uid, text := range m.uids {
		if m.former[uid] {
			continue
		}
		if other, twice := byText[text]; twice {
			rt.Fatalf("%.20q had the unique-id %s, then %s", text, other, uid)
		}
		byText[text] = uid
	}
}

// second is somebody else who wants the same maildrop meanwhile.
func (m *model) second(rt *rapid.T) {
	m.needs(rt, true)
	conn, _, answer := m.connect(rt)
	conn.Close()
	if !strings.HasPrefix(answer, "-ERR [IN-USE]") {
		rt.Fatalf("a second session: %s", answer)
	}
}

// list: the snapshot stands whatever happened since.
func (m *model) list(rt *rapid.T) {
	m.needs(rt, true)
	var want strings.Builder
	count, octets := 0, 0
	for i, text := range m.shown {
		if !m.deleted[i+1] {
			fmt.Fprintf(&want, "%d %d\r\n", i+1, len(text))
			count, octets = count+1, octets+len(text)
		}
	}
	if got := m.ask(rt, "STAT"); got != fmt.Sprintf("+OK %d %d", count, octets) {
		rt.Fatalf("STAT %s, want %d %d", got, count, octets)
	}
	m.ask(rt, "LIST")
	if got := m.body(rt); got != want.String() {
		rt.Fatalf("LIST %q, want %q", got, want.String())
	}
}

// pick chooses a message of the snapshot that is not deleted.
func (m *model) pick(rt *rapid.T) int {
	m.needs(rt, true)
	var left []int
	for n := range len(m.shown) {
		if !m.deleted[n+1] {
			left = append(left, n+1)
		}
	}
	if len(left) == 0 {
		rt.Skip()
	}
	return rapid.SampledFrom(left).Draw(rt, "n")
}

func (m *model) retr(rt *rapid.T) {
	n := m.pick(rt)
	text := m.shown[n-1]
	got := m.ask(rt, "RETR "+strconv.Itoa(n))
	if !m.letters[text] {
		if !strings.HasPrefix(got, "-ERR [SYS/TEMP] message ") {
			rt.Fatalf("RETR of a message that is gone: %s", got)
		}
		return
	}
	if got != fmt.Sprintf("+OK %d octets", len(text)) {
		rt.Fatalf("RETR: %s, want %d", got, len(text))
	}
	if got := m.body(rt); got != text {
		rt.Fatalf("RETR %.40q, want %.40q", got, text)
	}
}

func (m *model) dele(rt *rapid.T) {
	n := m.pick(rt)
	if got := m.ask(rt, "DELE "+strconv.Itoa(n)); !strings.HasPrefix(got, "+OK") {
		rt.Fatal(got)
	}
	m.deleted[n] = true
}

func (m *model) rset(rt *rapid.T) {
	m.needs(rt, true)
	m.ask(rt, "RSET")
	clear(m.deleted)
}

func (m *model) quit(rt *rapid.T) {
	m.needs(rt, true)
	if got, want := m.ask(rt, "QUIT"), fmt.Sprintf("+OK goodbye, %d messages removed", len(m.deleted)); got != want {
		rt.Fatalf("QUIT: %s, want %s", got, want)
	}
	for n := range m.deleted {
		if text := m.shown[n-1]; m.letters[text] {
			delete(m.letters, text)
			m.kept[text] = true
		}
	}
	m.conn.Close()
	m.conn = nil
}

// drop ends the link, perhaps in the middle of a command or of a letter.
func (m *model) drop(rt *rapid.T) {
	if m.conn == nil {
		return
	}
	if len(m.shown) > 0 {
		io.WriteString(m.conn, rapid.SampledFrom([]string{"", "QUI", "DELE 1\r\n", "RETR 1\r\n"}).Draw(rt, "last words"))
	}
	m.conn.Close()
	m.conn = nil
}

// dropInQuit ends the link before what was fetched in front of QUIT has been sent.
func (m *model) dropInQuit(rt *rapid.T) {
	n := m.pick(rt)
	fmt.Fprintf(m.conn, "RETR %d\r\nDELE %[1]d\r\nQUIT\r\n", n)
	m.conn.Close()
	m.conn = nil
}

// crash ends the server under its sessions and starts another.
func (m *model) crash(rt *rapid.T) {
	m.shut()
	m.start(rt)
}

// file is one letter on disk that another program is going to touch.
func (m *model) file(rt *rapid.T) (path, text string) {
	paths, _ := filepath.Glob(filepath.Join(maildir.Dir(m.root, ann), "[nc]*", "*"))
	if len(paths) == 0 {
		rt.Skip()
	}
	path = rapid.SampledFrom(paths).Draw(rt, "file")
	data, err := os.ReadFile(path)
	if err != nil {
		rt.Skip() // the session whose link has dropped is just moving it
	}
	return path, strings.ReplaceAll(string(data), "\n", "\r\n")
}

// otherFlags moves a letter to cur/ and changes its flags, as Dovecot and mutt do.
func (m *model) otherFlags(rt *rapid.T) {
	path, _ := m.file(rt)
	base, _, _ := strings.Cut(filepath.Base(path), ":")
	flags := rapid.SampledFrom([]string{"", "F", "S", "RS", "FST", "Sa"}).Draw(rt, "flags")
	os.Rename(path, filepath.Join(maildir.Dir(m.root, ann), "cur", base+":2,"+flags))
}

func (m *model) otherDelete(rt *rapid.T) {
	path, text := m.file(rt)
	if os.Remove(path) == nil {
		delete(m.letters, text)
	}
}

// undelete brings everything back that sessions removed, all of it and unchanged.
func (m *model) undelete(rt *rapid.T) {
	list, err := maildir.ListRemoved(m.root, ann)
	if err != nil {
		rt.Fatal(err)
	}
	var texts []string
	for _, l := range list {
		r, err := l.Open()
		if err != nil {
			rt.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		r.Close()
		texts = append(texts, strings.ReplaceAll(string(data), "\n", "\r\n"))
		m.former[l.UID] = true
	}
	if got, want := slices.Sorted(slices.Values(texts)), slices.Sorted(maps.Keys(m.kept)); !slices.Equal(got, want) {
		rt.Fatalf("kept are %.20q, want %.20q", got, want)
	}
	if back, err := maildir.Undelete(m.root, ann, list...); back != len(list) || err != nil {
		rt.Fatalf("undelete brought back %d of %d: %v", back, len(list), err)
	}
	for text := range m.kept {
		m.letters[text] = true
	}
	clear(m.kept)
}

// check counts what lies on disk.
func (m *model) check(rt *rapid.T) {
	if m.conn == nil {
		return // a session that has lost its link may still be moving letters
	}
	paths, _ := filepath.Glob(filepath.Join(maildir.Dir(m.root, ann), "[nc]*", "*"))
	if len(paths) != len(m.letters) {
		rt.Fatalf("%d letters on disk, want %d", len(paths), len(m.letters))
	}
}
