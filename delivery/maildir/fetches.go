package maildir

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// fetchesFile beside new/ and cur/ tells who took and who removed which letter, fetchesOld what
// came before that. Both together are at most 2*maxFetches octets and one session long, some
// 70,000 events.
const (
	fetchesFile = "fetches"
	fetchesOld  = "fetches.1"
	maxFetches  = 4 << 20
	// fetchesBuffer is how much of a session is written at once. What it holds is lost in a crash;
	// to flush it would make every session wait for the disk, for the sake of a hint to the
	// operator.
	fetchesBuffer = 32 << 10
)

// The words of a Fetch.
const (
	FetchTaken   = "fetched" // RETR sent all of it
	FetchRemoved = "removed" // DELE and QUIT removed it
)

// Fetch is one line of what sessions did in a mailbox.
type Fetch struct {
	At     time.Time // to the second
	Word   string    // FetchTaken or FetchRemoved
	Client netip.Addr
	relay.Message
}

// note adds a line of this session to the fetch log, in memory as a rule:
//
//	<time> <word> <client> <unique-id> <size> <id or ->
func (d *Drop) note(word string, n int) {
	if d.lock == nil || !d.client.IsValid() {
		return // there is no maildir, or nobody said who reads
	}
	m := d.messages[n-1]
	b := time.Now().UTC().AppendFormat(d.notes, time.RFC3339)
	b = append(append(append(b, ' '), word...), ' ')
	b = append(append(d.client.AppendTo(b), ' '), m.UID...)
	b = strconv.AppendInt(append(b, ' '), m.Size, 10)
	d.notes = append(append(append(b, ' '), orDash(string(m.ID))...), '\n')
	if len(d.notes) >= fetchesBuffer {
		d.writeNotes()
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// writeNotes appends to the log. One session at a time has the mailbox, so nobody else does.
func (d *Drop) writeNotes() {
	if len(d.notes) == 0 {
		return
	}
	if err := appendFetches(d.box.dir, d.notes); err != nil {
		d.store.log.Warn("cannot note what was fetched", "mailbox", d.box.addr, "err", err)
	}
	d.notes = d.notes[:0]
}

// appendFetches writes whole lines, and begins another file where one has become too long.
func appendFetches(dir string, lines []byte) error {
	path := filepath.Join(dir, fetchesFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	if info, bad := f.Stat(); bad == nil && info.Size() >= maxFetches {
		err = errors.Join(err, os.Rename(path, filepath.Join(dir, fetchesOld)))
	}
	return errors.Join(err, f.Close())
}

// Fetches reads what sessions did in a mailbox under root, the oldest first, as far back as the
// log goes. What a running session did last may be missing. It may run beside a Store of another
// process.
func Fetches(root string, mailbox relay.Address) iter.Seq2[Fetch, error] {
	return func(yield func(Fetch, error) bool) {
		for line, err := range fetchLines(Dir(root, mailbox)) {
			if err != nil {
				yield(Fetch{}, fmt.Errorf("maildir: fetches of %s: %w", mailbox, err))
				return
			}
			if f, ok := parseFetch(line); ok && !yield(f, nil) {
				return
			}
		}
	}
}

// fetchLines yields the fields of each line of the log.
func fetchLines(dir string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		for _, name := range []string{fetchesOld, fetchesFile} {
			f, err := os.Open(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(nil, err)
				return
			}
			lines := bufio.NewScanner(f)
			for lines.Scan() {
				if !yield(strings.Fields(lines.Text()), nil) {
					f.Close()
					return
				}
			}
			f.Close()
			if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) && !yield(nil, err) {
				return
			}
		}
	}
}

// parseFetch reads a line. A crash may have torn one, and others say other things.
func parseFetch(fields []string) (f Fetch, ok bool) {
	if len(fields) != 6 || fields[1] != FetchTaken && fields[1] != FetchRemoved {
		return f, false
	}
	at, err1 := time.Parse(time.RFC3339, fields[0])
	client, err2 := netip.ParseAddr(fields[2])
	size, err3 := strconv.ParseInt(fields[4], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return f, false
	}
	id, _ := relay.ParseID(fields[5])
	return Fetch{At: at, Word: fields[1], Client: client, Message: relay.Message{ID: id, UID: fields[3], Size: size}}, true
}
