package known

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// maxDomains bounds the memory; the domain that was written to longest ago makes room.
const maxDomains = 5000

// maxFile bounds what is read of the file: maxDomains of the longest names.
const maxFile = 2 << 20

const dayFormat = "2006-01-02"

// Memory is the domains and the day each last took a letter. Safe for many goroutines.
type Memory struct {
	log    *slog.Logger
	keeper *durable.Keeper

	mu   sync.Mutex
	last map[relay.Domain]string // day, as dayFormat
}

// Open reads the file at path. One that is missing or cannot be read is an empty memory: nobody
// shall wait for their mail because of it.
func Open(path string, log *slog.Logger) *Memory {
	m := &Memory{log: log.With("room", "known"), last: map[relay.Domain]string{}}
	m.keeper = durable.NewKeeper(path, m.state, m.log)
	if err := m.read(path); err != nil {
		m.log.Warn("the domains written to cannot be read", "file", path, "err", err)
	}
	return m
}

func (m *Memory) read(path string) error {
	return durable.ReadLines(path, maxFile, durable.MaxLine, func(text []byte) {
		day, name, _ := strings.Cut(string(text), " ")
		_, err := time.Parse(dayFormat, day)
		d, derr := relay.ParseDomain(name)
		if err == nil && derr == nil && len(m.last) < maxDomains {
			m.last[d] = day
		}
	})
}

// Note remembers that d took a letter at now. It never waits for the disk.
func (m *Memory) Note(d relay.Domain, now time.Time) {
	if d == "" || d.IsLiteral() {
		return
	}
	day := now.UTC().Format(dayFormat)
	m.mu.Lock()
	had, known := m.last[d]
	if !known && len(m.last) >= maxDomains {
		m.forget()
	}
	m.last[d] = day
	m.mu.Unlock()
	if had != day {
		m.keeper.Changed()
	}
}

// Last returns the day d was noted last, in UTC; false when it is not remembered.
func (m *Memory) Last(d relay.Domain) (time.Time, bool) {
	m.mu.Lock()
	day, known := m.last[d]
	m.mu.Unlock()
	t, err := time.Parse(dayFormat, day)
	return t, known && err == nil
}

// forget drops the domain that was written to longest ago.
func (m *Memory) forget() {
	var oldest relay.Domain
	for d, day := range m.last {
		if oldest == "" || day < m.last[oldest] {
			oldest = d
		}
	}
	delete(m.last, oldest)
}

// Near returns the domain that was probably meant by d: one that was written to before, or one of
// also; false when none is near enough.
func (m *Memory) Near(d relay.Domain, also ...relay.Domain) (relay.Domain, bool) {
	m.mu.Lock()
	names := slices.Collect(maps.Keys(m.last))
	m.mu.Unlock()
	return nearest(d, append(names, also...))
}

// state is the file, the newest first.
func (m *Memory) state() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(m.last), func(a, b relay.Domain) int {
		return cmp.Or(cmp.Compare(m.last[b], m.last[a]), cmp.Compare(a, b))
	})
	var b bytes.Buffer
	for _, d := range names {
		fmt.Fprintf(&b, "%s %s\n", m.last[d], d)
	}
	return b.Bytes(), nil
}

// Run writes the file now and then until ctx ends.
func (m *Memory) Run(ctx context.Context) { m.keeper.Run(ctx) }

// Close writes what Run has not.
func (m *Memory) Close() error { return m.keeper.Close() }
