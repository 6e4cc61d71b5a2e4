package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"relayd/relay"
)

// signed is the fields a signature covers. Each is named once more than it is there, so that
// nobody can add another in front, which many programs would show instead (RFC 6376 §8.15).
var signed = []string{"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding"}

// signedIfThere is covered in the same way where the writer has it. Where not, a mailing list may
// add its own and the signature still holds: to forbid that would have DMARC refuse our people's
// letters at every list that changes nothing else.
var signedIfThere = []string{"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post",
	"List-Subscribe", "List-Post", "List-Owner", "List-Archive"}

// maxBlank bounds a run of empty lines, in octets: the canonical form needs to know what follows
// before it is written, so all of the run is held in memory.
const maxBlank = 256 << 10

var errBlank = errors.New("the message has too many empty lines in a row")

// Signature is the DKIM signatures of one letter, while it is being written. It belongs to one
// goroutine. Close it.
type Signature struct {
	signers []*dkim.Signer
	header  int   // octets of it
	size    int64 // octets written
	blank   int   // octets of blanks and line ends just before
	err     error
}

// Sign begins the signatures of a letter with this header that is from an address of d: one by
// each algorithm. nil: no key may sign for d.
func (ks *Keys) Sign(d relay.Domain, header []byte) *Signature {
	keys := ks.signing(d)
	if len(keys) == 0 {
		return nil
	}
	s := &Signature{header: len(header)}
	names := headerKeys(header)
	for _, k := range keys {
		signer, err := dkim.NewSigner(&dkim.SignOptions{
			Domain: string(d), Selector: k.Selector, Signer: k.signer, HeaderKeys: names,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		})
		if err != nil {
			s.err = fmt.Errorf("policy: sign as %s: %w", k.RecordName(), err)
			break
		}
		s.signers = append(s.signers, signer)
	}
	return s
}

// signing chooses a visible key of each algorithm: the youngest active one or, where its record
// has gone, one that was active before.
func (ks *Keys) signing(d relay.Domain) (chosen []*Key) {
	ks.mu.RLock()
	defer ks.mu.RUnlock()
	for _, k := range ks.all[d] {
		taken := slices.ContainsFunc(chosen, func(c *Key) bool { return c.Algorithm == k.Algorithm })
		if k.Role != Next && k.Visible && !taken {
			chosen = append(chosen, k)
		}
	}
	return chosen
}

// headerKeys is the h= of a signature.
func headerKeys(header []byte) []string {
	there := map[string]int{}
	for line := range bytes.Lines(header) {
		if name, _, ok := bytes.Cut(line, []byte(":")); ok && line[0] != ' ' && line[0] != '\t' {
			there[strings.ToLower(strings.TrimRight(string(name), " \t"))]++
		}
	}
	var names []string
	add := func(list []string, least int) {
		for _, name := range list {
			n := there[strings.ToLower(name)]
			if n < least {
				continue
			}
			for range n + 1 {
				names = append(names, name)
			}
		}
	}
	add(signed, 0)
	add(signedIfThere, 1)
	return names
}

// Write takes the next octets of the letter, header and body. It never fails; Fields does.
func (s *Signature) Write(p []byte) (int, error) {
	if s.err != nil {
		return len(p), nil
	}
	s.size += int64(len(p))
	if s.countBlank(p); s.blank > maxBlank {
		s.err = fmt.Errorf("policy: sign: %w", errBlank)
		return len(p), nil
	}
	s.pass(p)
	return len(p), nil
}

func (s *Signature) pass(p []byte) {
	for _, signer := range s.signers {
		if _, err := signer.Write(p); err != nil {
			s.err = fmt.Errorf("policy: sign: %w", err)
			return
		}
	}
}

const blanks = " \t\r\n"

func (s *Signature) countBlank(p []byte) {
	tail := len(p) - len(bytes.TrimRight(p, blanks))
	if tail == len(p) {
		s.blank += tail
		return
	}
	s.blank = max(tail, s.blank+len(p)-len(bytes.TrimLeft(p, blanks)))
	if s.blank <= maxBlank {
		s.blank = tail
	}
}

// Fields ends the letter and returns its DKIM-Signature fields, each with its CRLF.
func (s *Signature) Fields() (string, error) {
	if s.err == nil && s.size <= int64(s.header) {
		// A letter without a body may lack the empty line too.
		s.pass([]byte("\r\n"))
	}
	var b strings.Builder
	for _, signer := range s.signers {
		if err := signer.Close(); err != nil && s.err == nil {
			s.err = fmt.Errorf("policy: sign: %w", err)
		}
		if s.err == nil {
			b.WriteString(signer.Signature())
		}
	}
	if s.signers = nil; s.err != nil {
		return "", s.err
	}
	return b.String(), nil
}

// Close gives the signature up; harmless after Fields.
func (s *Signature) Close() {
	for _, signer := range s.signers {
		signer.Close()
	}
	s.signers = nil
}
