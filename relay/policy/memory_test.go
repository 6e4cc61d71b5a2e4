package policy

import (
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"relayd/relay"
)

// TestMemory: a letter of 8 MB is signed and verified while it passes by, and costs no memory of its
// size. It runs alone, because what it measures is the whole process's.
func TestMemory(t *testing.T) {
	z := &zone{txt: map[string][]string{}}
	ks, err := OpenKeys(t.TempDir(), z, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ks.SetDomains([]relay.Domain{office})
	all, err := ks.List(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	z.publish(all...)
	if _, err := ks.List(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	const chunks, most = 256, 2 << 20
	chunk := []byte(strings.Repeat("some words in a line of text, as letters have them\r\n", 630)) // 32 kB
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	s := ks.Sign(office, []byte(dinner))
	s.Write([]byte(dinner + "\r\n"))
	for range chunks {
		s.Write(chunk)
	}
	if grown := heap() - before; grown > most {
		t.Errorf("while signing the heap grew by %d octets", grown)
	}
	fields, err := s.Fields()
	if err != nil {
		t.Fatal(err)
	}
	c := Begin(t.Context(), &records{texts: published(z)}, Letter{Client: netip.MustParseAddr("192.0.2.1"), Helo: "x", Header: []byte(fields + dinner), Fields: 1, Authors: []relay.Domain{office}})
	for range chunks {
		c.Write(chunk)
	}
	if grown := heap() - before; grown > most {
		t.Errorf("while verifying the heap grew by %d octets", grown)
	}
	if f := c.Finish(); !strings.Contains(f.String(), "dkim=pass") || strings.Contains(f.String(), "dkim=fail") {
		t.Error(f.All)
	}
}

// published is the zone as a whole DNS.
func published(z *zone) map[string]string {
	all := map[string]string{}
	for name, texts := range z.txt {
		all[name] = texts[0]
	}
	return all
}
