package relaytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// MXServer is a remote mail server that follows an MXScript and remembers what it was given. It
// stands on net alone, so that a fault of go-smtp cannot hide one of ours.
type MXServer struct {
	listener net.Listener
	dir      string
	cert     tls.Certificate
	quit     chan struct{}
	done     sync.WaitGroup

	mu         sync.Mutex
	script     MXScript
	uses       map[string]int // of each rule, and address where that counts
	conns      map[net.Conn]bool
	closed     bool
	count      int
	letters    []MXLetter
	commands   []string
	violations []string
	news       chan struct{} // closed and replaced at each letter
}

// MXLetter is one letter as it came over the wire.
type MXLetter struct {
	Helo  string
	TLS   bool
	Mail  string   // MAIL FROM: and what follows, "<ann@office.example> SIZE=12"
	Rcpts []string // the accepted RCPT TO: alike
	Body  []byte   // dots unstuffed, without the final dot
	Raw   []byte   // every octet after the 354, the final dot too
}

// MX runs a scripted MX until the test ends. script is in the text form of MXScript.
func MX(t testing.TB, script string) *MXServer {
	t.Helper()
	parsed, err := ParseMXScript(script)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewMX("127.0.0.1:0", parsed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// NewMX listens on addr ("127.0.0.1:0" picks a port, a path with a / is a Unix socket). Close ends it.
func NewMX(addr string, script MXScript) (*MXServer, error) {
	cert, err := selfSigned(script.host())
	if err != nil {
		return nil, fmt.Errorf("relaytest: %w", err)
	}
	network := "tcp"
	if strings.Contains(addr, "/") {
		network = "unix"
	}
	listener, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("relaytest: %w", err)
	}
	s := &MXServer{
		listener: listener, cert: cert, script: script,
		uses: map[string]int{}, conns: map[net.Conn]bool{}, news: make(chan struct{}), quit: make(chan struct{}),
	}
	s.done.Go(s.accept)
	return s, nil
}

// KeepIn makes the server write every letter from now on into dir, as 0001.eml (the text) and
// 0001.env (MAIL FROM:... and RCPT TO:... a line each), which appears last.
func (s *MXServer) KeepIn(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("relaytest: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir = dir
	return nil
}

// Addr is where the server listens.
func (s *MXServer) Addr() netip.AddrPort {
	return netip.MustParseAddrPort(s.listener.Addr().String())
}

// Certificate is what it shows after STARTTLS.
func (s *MXServer) Certificate() *x509.Certificate { return s.certificate().Leaf }

// SetCertificate changes what it shows from the next handshake on.
func (s *MXServer) SetCertificate(cert tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = cert
}

func (s *MXServer) certificate() tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cert
}

// SetScript changes the script for what comes next, in open sessions too, and starts all counts
// of uses again.
func (s *MXServer) SetScript(script MXScript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script, s.uses = script, map[string]int{}
}

// Letters returns the letters taken so far.
func (s *MXServer) Letters() []MXLetter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.letters)
}

// Count is how many letters were taken; a sink knows no more.
func (s *MXServer) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Wait returns when n letters in all have been taken.
func (s *MXServer) Wait(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		count, news := s.count, s.news
		s.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("relaytest: %d letters of %d: %w", count, n, ctx.Err())
		}
	}
}

// Commands returns the command lines of all sessions in order of arrival.
func (s *MXServer) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// Violations tells where a client broke the rules of SMTP: bare newlines, 8-bit text without
// BODY=8BITMIME, commands sent ahead where PIPELINING was not offered.
func (s *MXServer) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Close hangs up on everybody and waits.
func (s *MXServer) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	if !s.closed {
		close(s.quit)
	}
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}

func (s *MXServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if !s.enter(c) {
			c.Close()
			return
		}
		s.done.Go(func() {
			defer s.leave(c)
			newMXSession(s, c).run()
		})
	}
}

func (s *MXServer) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *MXServer) leave(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *MXServer) current() MXScript {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.script
}

// act picks the action for a stage, and uses up its rule.
func (s *MXServer) act(stage string, addresses ...string) (MXAction, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.script.Rules {
		if r.Stage != stage || !r.matches(addresses) {
			continue
		}
		key := fmt.Sprint(i)
		if stage == "mail" || stage == "rcpt" {
			key += " " + strings.ToLower(strings.Join(addresses, " "))
		}
		s.uses[key]++
		used := s.uses[key]
		if used <= r.After || r.First > 0 && used > r.First {
			continue
		}
		return r.Action, true
	}
	return MXAction{}, false
}

func (s *MXServer) heard(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, line)
}

func (s *MXServer) violated(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, fmt.Sprintf(format, args...))
}

// keep records a letter.
func (s *MXServer) keep(l MXLetter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.letters = append(s.letters, l)
	if s.dir != "" {
		if err := l.write(s.dir, s.count); err != nil {
			return err
		}
	}
	close(s.news)
	s.news = make(chan struct{})
	return nil
}

func (l MXLetter) write(dir string, n int) error {
	var env strings.Builder
	fmt.Fprintf(&env, "MAIL FROM:%s\n", l.Mail)
	for _, r := range l.Rcpts {
		fmt.Fprintf(&env, "RCPT TO:%s\n", r)
	}
	base := filepath.Join(dir, fmt.Sprintf("%04d", n))
	if err := os.WriteFile(base+".eml", l.Body, 0o600); err != nil {
		return err
	}
	// The envelope appears whole and last: a script that waits for it finds the letter complete.
	if err := os.WriteFile(base+".tmp", []byte(env.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(base+".tmp", base+".env")
}

func selfSigned(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
