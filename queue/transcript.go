package queue

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayd/relay"
)

// The dialogues of an item's failed attempts lie in a file of its own, a line of JSON for each, and
// nowhere else: a record that carried them would be written again with every change of the item, and
// read at every start. Nothing waits for the disk here. What a crash tears is a dialogue, never mail.

// Bounds, in octets. Five days of the default schedule fit in with a kilobyte for each attempt; of what
// does not fit, the first and the newest stay.
const (
	maxTranscript     = 8 << 10
	maxTranscripts    = 64 << 10 // of one item's file
	transcriptsShrunk = 48 << 10 // what is left when it has grown beyond
)

// Transcript is the dialogue of one attempt that left somebody waiting.
type Transcript struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`   // when it was over
	Text    string    `json:"text"` // see relay.Result.Transcript
}

func (l layout) transcripts() string { return filepath.Join(l.dir, "transcripts") }

func (l layout) transcript(k Key) string { return filepath.Join(l.transcripts(), transcriptName(k)) }

// transcriptName begins with the ID. A domain that no file name has room for is told by its hash.
func transcriptName(k Key) string {
	const longest = 200
	domain := string(k.Domain)
	if len(domain) > longest {
		domain = fmt.Sprintf("%x", sha256.Sum256([]byte(domain)))
	}
	return string(k.ID) + "." + domain
}

// Transcripts are the dialogues of the attempts at one item that failed, the oldest first; none is no
// error.
func (s *store) Transcripts(k Key) ([]Transcript, error) {
	text, err := os.ReadFile(s.transcript(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: transcripts: %w", err)
	}
	return parseTranscripts(text), nil
}

// parseTranscripts passes over what a crash or a full disk has torn.
func parseTranscripts(text []byte) (all []Transcript) {
	for line := range bytes.Lines(text) {
		var t Transcript
		if json.Unmarshal(line, &t) == nil {
			all = append(all, t)
		}
	}
	return all
}

// takeTranscript takes the dialogue out of results; it is on one of them.
func takeTranscript(results []relay.Result) (text string) {
	for i := range results {
		if results[i].Transcript != "" {
			text, results[i].Transcript = results[i].Transcript, ""
		}
	}
	return strings.ToValidUTF8(text[:min(len(text), maxTranscript)], "")
}

// keepTranscript adds one to the file of an item. An error costs a dialogue and is only logged.
func (q *Queue) keepTranscript(k Key, t Transcript) {
	if t.Text == "" {
		return
	}
	err := q.addTranscript(k, t)
	if err != nil {
		q.log.Warn("the dialogue of an attempt is not kept", "id", k.ID, "rcpt", k.Domain, "err", err)
	}
	q.mu.Lock()
	gone := q.index.get(k) == nil
	q.mu.Unlock()
	if gone { // dropped meanwhile
		q.dropTranscripts(k)
	}
}

func (q *Queue) addTranscript(k Key, t Transcript) error {
	f, err := os.OpenFile(q.transcript(k), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(q.transcripts(), 0o700); err == nil {
			f, err = os.OpenFile(q.transcript(k), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// An empty line first: the last one may be torn.
	if _, err := f.Write(append([]byte("\n"), transcriptLine(t)...)); err != nil {
		return err
	}
	if info, err := f.Stat(); err != nil || info.Size() <= maxTranscripts {
		return err
	}
	return q.shrinkTranscripts(k)
}

func transcriptLine(t Transcript) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(t) // into memory, and JSON knows all of it
	return b.Bytes()
}

// shrinkTranscripts keeps the first dialogue and as many of the newest as there is room for.
func (q *Queue) shrinkTranscripts(k Key) error {
	all, err := q.Transcripts(k)
	if err != nil || len(all) == 0 {
		return err
	}
	room := transcriptsShrunk - len(transcriptLine(all[0]))
	from := len(all)
	for from > 1 {
		if room -= len(transcriptLine(all[from-1])); room < 0 {
			break
		}
		from--
	}
	tmp := q.transcript(k) + tmpSuffix
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, t := range append(all[:1:1], all[from:]...) {
		w.Write(transcriptLine(t))
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, q.transcript(k))
}

const tmpSuffix = ".tmp"

// dropTranscripts removes those of items that are gone. What stays is no harm, and the next start
// removes it.
func (q *Queue) dropTranscripts(keys ...Key) {
	for _, k := range keys {
		if err := os.Remove(q.transcript(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.log.Debug("cannot remove the dialogues of an item that is gone", "id", k.ID, "err", err)
		}
	}
}

// sweepTranscripts removes those whose item a crash took from under them. IDs are never reused, so
// that none of them can belong to mail that comes. An end in order leaves none, and there may be as many
// as letters: looking at them would cost every start.
func (q *Queue) sweepTranscripts() {
	d, err := os.Open(q.transcripts())
	if err != nil {
		return // there are none yet
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(1000)
		for _, name := range names {
			select {
			case <-q.stop:
				return
			default:
			}
			if !q.ownsTranscript(name) {
				os.Remove(filepath.Join(q.transcripts(), name))
			}
		}
		if err != nil {
			return
		}
	}
}

func (q *Queue) ownsTranscript(name string) bool {
	id, _, _ := strings.Cut(name, ".")
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.index.letters[relay.ID(id)]
	if l == nil {
		return false
	}
	for _, e := range l.entries {
		if own := transcriptName(e.key()); name == own || name == own+tmpSuffix {
			return true
		}
	}
	return false
}
