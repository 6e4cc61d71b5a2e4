package intake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"relayd/relay"
)

// Signer signs what our own people and we ourselves send elsewhere. relay/policy does;
// cmd/relayd hands it to Options.
type Signer interface {
	// Sign begins the signature of a letter with this header that is from an address of d; nil:
	// it goes unsigned.
	Sign(d relay.Domain, header []byte) Signature
}

// Signature is one letter's, while the letter is written to it, which never fails.
type Signature interface {
	io.Writer
	// Fields ends the letter and returns the fields that belong in front of it.
	Fields() (string, error)
	// Close gives up; harmless after Fields.
	Close()
}

// sign begins the signature of a letter that leaves. Letters of strangers that only pass through
// are theirs to sign.
func (t *transaction) sign(h header) Signature {
	if t.in.signer == nil || !h.whole || !t.env.Origin.Trusted && !t.settings.submitted(t.env.Origin) {
		return nil
	}
	d, ok := t.settings.Directory.signedBy(h.from)
	if !ok {
		return nil
	}
	return t.in.signer.Sign(d, h.raw[:h.end])
}

// signedBy is the domain that answers for a letter with these From fields: that of the only
// address in the only field, where it is ours. Ours for this are also the names that SigningDomain
// knows.
func (d *Directory) signedBy(from []string) (relay.Domain, bool) {
	if len(from) != 1 {
		return "", false
	}
	writers, ok := mailboxes(from[0])
	if !ok || len(writers) != 1 {
		return "", false
	}
	a, err := writers[0].address(d.Default)
	if err != nil {
		return "", false
	}
	if _, ours := d.Domains[a.Domain]; ours {
		return a.Domain, true
	}
	return SigningDomain(d.Hostname, func(name relay.Domain) bool { _, ours := d.Domains[name]; return ours }), a.Domain == d.Hostname
}

// SigningDomain is the domain that signs our own letters from addresses at hostname: the nearest
// of our domains it lies below, which DMARC takes as the same organisation (RFC 9989 §4.4), or else
// hostname itself.
func SigningDomain(hostname relay.Domain, ours func(relay.Domain) bool) relay.Domain {
	for d := hostname; d != ""; {
		if ours(d) {
			return d
		}
		_, parent, _ := strings.Cut(string(d), ".")
		d = relay.Domain(parent)
	}
	return hostname
}

// signing is a foreign route whose letter is being signed. The fields belong in front of the
// letter and depend on all of it, so it waits in a spool until seal.
type signing struct {
	relay.Staged
	signature Signature
	trace     string
	spool     spool
}

func (s *signing) Write(p []byte) (int, error) {
	s.signature.Write(p)
	return s.spool.Write(p)
}

// seal hands the whole letter to the route. Where the signature failed, unsigned says why, and the
// letter goes without.
func (s *signing) seal() (unsigned, err error) {
	defer s.spool.close()
	fields, unsigned := s.signature.Fields()
	if _, err := io.WriteString(s.Staged, fields+s.trace); err != nil {
		return unsigned, err
	}
	return unsigned, s.spool.copyTo(s.Staged)
}

// Abort implements relay.Staged.
func (s *signing) Abort() error {
	s.signature.Close()
	s.spool.close()
	return s.Staged.Abort()
}

// openForeign opens the queue for a letter, through a signature if it is to have one.
func (t *transaction) openForeign(ctx context.Context, routes []relay.Staged, env relay.Envelope, h header, trace string) ([]relay.Staged, error) {
	signature := t.sign(h)
	if signature == nil {
		return open(ctx, routes, t.in.foreign, env, trace)
	}
	s, err := t.in.foreign.Stage(ctx, env)
	if err != nil {
		signature.Close()
		return routes, err
	}
	return append(routes, &signing{Staged: s, signature: signature, trace: trace, spool: spool{dir: t.in.disk.path}}), nil
}

// seal ends the signatures, before anything is committed.
func (t *transaction) seal(routes []relay.Staged) error {
	for _, r := range routes {
		s, ok := r.(*signing)
		if !ok {
			continue
		}
		unsigned, err := s.seal()
		if unsigned != nil {
			t.in.log.Warn("a letter goes unsigned", "id", t.env.ID, "err", unsigned)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spoolMemory is how much of a letter a spool holds in memory, in octets; beyond that all of it
// goes into a file without a name, which no crash leaves behind.
const spoolMemory = 64 << 10

// spool keeps a letter until its signature is known. It needs a close.
type spool struct {
	dir    string
	memory bytes.Buffer
	file   *os.File
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.memory.Len()+len(p) <= spoolMemory {
		return s.memory.Write(p)
	}
	if s.file == nil {
		if err := s.openFile(); err != nil {
			return 0, fmt.Errorf("intake: spool: %w", err)
		}
	}
	return s.file.Write(p)
}

func (s *spool) openFile() error {
	fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		s.file = os.NewFile(uintptr(fd), filepath.Join(s.dir, "spool"))
	} else {
		// Not every file system has files without a name.
		if s.file, err = os.CreateTemp(s.dir, "spool-*"); err != nil {
			return err
		}
		if err := os.Remove(s.file.Name()); err != nil {
			return err
		}
	}
	_, err = s.memory.WriteTo(s.file)
	s.memory = bytes.Buffer{}
	return err
}

func (s *spool) copyTo(w io.Writer) error {
	if s.file == nil {
		_, err := w.Write(s.memory.Bytes())
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("intake: spool: %w", err)
	}
	_, err := io.CopyBuffer(writerOnly{w}, readerOnly{s.file}, make([]byte, bufferSize))
	return err
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.memory = nil, bytes.Buffer{}
}
