package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// memory is who has written to us and who was asked to try again. It is bounded, holds hashes rather
// than addresses, and lies in a small file of lines
//
//	good 2026-11-21 <hash>            somebody whose letter was accepted, and when last
//	wait 2026-11-21T15:04:05Z <hash>  somebody who was asked to try again, and when first
//
// that is written now and then; a crash may cost its last seconds, which is one more try.
type memory struct {
	most int // of each kind

	mu   sync.Mutex
	good map[key]int64 // seconds since 1970, of the day
	wait map[key]int64 // seconds since 1970
}

type key [16]byte

const (
	// maxRemembered bounds each kind; both together take some 5 MB, and 4 MB of the file.
	maxRemembered = 40_000
	// goodFor is how long a letter that was accepted speaks for its sender, waitFor how late a
	// second try may come. Servers give up after five days (RFC 5321 §4.5.4.1), and most try within hours.
	goodFor = 35 * 24 * time.Hour
	waitFor = 2 * 24 * time.Hour

	day = 24 * 60 * 60
)

func newMemory() *memory {
	return &memory{most: maxRemembered, good: map[key]int64{}, wait: map[key]int64{}}
}

// hash makes a key of words; each ends in a NUL, so that no two lists of words are alike.
func hash(words ...string) (k key) {
	h := sha256.New()
	for _, w := range words {
		io.WriteString(h, w)
		h.Write([]byte{0})
	}
	copy(k[:], h.Sum(nil))
	return k
}

// The keys. A client is known by its own address, its /64 in IPv6; a sender by the network of its
// client, because big providers try again from another machine next to the first.
func clientKey(client netip.Addr) key {
	if client.Is6() {
		return hash("client", network(client).String())
	}
	return hash("client", client.String())
}

func senderKey(client netip.Addr, from relay.Address) key {
	return hash("sender", network(client).String(), string(from.Domain))
}

func letterKey(client netip.Addr, from relay.Address, to string) key {
	return hash("letter", network(client).String(), strings.ToLower(from.String()), strings.ToLower(to))
}

// isGood says whether a letter of theirs was accepted lately.
func (m *memory) isGood(k key, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.good[k]
	return ok && now.Unix()-at < int64(goodFor/time.Second)
}

// setGood notes an accepted letter; true: the file has to be written.
func (m *memory) setGood(now time.Time, keys ...key) (changed bool) {
	today := now.Unix() - now.Unix()%day
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		if m.good[k] == today {
			continue
		}
		put(m.good, k, today, m.most)
		changed = true
	}
	return changed
}

// since is when somebody was asked first to try again, which is now for whoever never was.
func (m *memory) since(k key, now time.Time) (at time.Time, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, ok := m.wait[k]
	if age := now.Unix() - first; !ok || age > int64(waitFor/time.Second) || age < 0 {
		put(m.wait, k, now.Unix(), m.most)
		return now, true
	}
	return time.Unix(first, 0), false
}

func (m *memory) done(keys ...key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		delete(m.wait, k)
	}
}

func (m *memory) sizes() (good, wait int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.good), len(m.wait)
}

// put adds an entry; in a full map, in the place of the oldest of a few taken by chance.
func put(m map[key]int64, k key, at int64, most int) {
	if _, have := m[k]; !have && len(m) >= most {
		var victim key
		oldest, n := int64(0), 0
		for k, at := range m {
			if n == 0 || at < oldest {
				victim, oldest = k, at
			}
			if n++; n == sample {
				break
			}
		}
		delete(m, victim)
	}
	m[k] = at
}

// state is the file. What has run out is left out of it and of the memory.
func (m *memory) state(now time.Time) []byte {
	m.mu.Lock()
	forget := func(all map[key]int64, life time.Duration) map[key]int64 {
		maps.DeleteFunc(all, func(_ key, at int64) bool { return now.Unix()-at >= int64(life/time.Second) })
		return maps.Clone(all)
	}
	good, wait := forget(m.good, goodFor), forget(m.wait, waitFor)
	m.mu.Unlock()
	b := make([]byte, 0, maxLine*(len(good)+len(wait)))
	write := func(kind, format string, all map[key]int64) {
		for k, at := range all {
			b = append(b, kind...)
			b = time.Unix(at, 0).UTC().AppendFormat(b, format)
			b = hex.AppendEncode(append(b, ' '), k[:])
			b = append(b, '\n')
		}
	}
	write("good ", time.DateOnly, good)
	write("wait ", time.RFC3339, wait)
	return b
}

// read takes in the file at path. A line that makes no sense is left out.
func (m *memory) read(path string) error {
	return durable.ReadLines(path, 2*maxRemembered*maxLine, durable.MaxLine, func(text []byte) {
		kind, at, k, ok := parseLine(string(text))
		switch {
		case !ok:
		case kind == "good" && len(m.good) < m.most:
			m.good[k] = at
		case kind == "wait" && len(m.wait) < m.most:
			m.wait[k] = at
		}
	})
}

// maxLine is the longest line of the file.
const maxLine = 80

func parseLine(line string) (kind string, at int64, k key, ok bool) {
	words := strings.Split(line, " ")
	if len(words) != 3 {
		return "", 0, k, false
	}
	format := map[string]string{"good": time.DateOnly, "wait": time.RFC3339}[words[0]]
	t, err := time.Parse(format, words[1])
	sum, herr := hex.DecodeString(words[2])
	if format == "" || err != nil || herr != nil || len(sum) != len(k) {
		return "", 0, k, false
	}
	copy(k[:], sum)
	return words[0], t.Unix(), k, true
}
