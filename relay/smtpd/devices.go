package smtpd

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
)

// Device is what is remembered of one client's address.
type Device struct {
	Client  netip.Addr
	Service string    // where it connected last
	Helo    string    // what it calls itself
	Seen    time.Time // when it connected last

	Letters int // accepted since the start
	ID      relay.ID
	From    relay.Address
	To      relay.Address // the first of its recipients
	Rcpts   int
	At      time.Time // the last letter; zero: none

	Trouble   string    // what went wrong last, for somebody who stands before the device
	TroubleAt time.Time // zero: nothing has
}

// Devices remembers the clients of the services whose Profile has it: what they sent last, and
// what went wrong. It lives in memory alone: a device says who it is whenever it tries again. The
// least recently seen is forgotten for a new one, and those who may not connect at all never push
// out one who may.
type Devices struct {
	mu        sync.Mutex
	known     map[netip.Addr]*Device
	strangers map[netip.Addr]*Device
	hours     map[netip.Addr]hour // never more than known
}

// hour counts the letters within an hour of its first.
type hour struct {
	began   time.Time
	letters int
}

// Bounds of what is remembered; an entry takes a kilobyte or two.
const (
	maxDevices   = 1000
	maxStrangers = 50
	maxTrouble   = 300 // octets
)

// NewDevices makes a Devices that has seen nobody.
func NewDevices() *Devices {
	return &Devices{known: map[netip.Addr]*Device{}, strangers: map[netip.Addr]*Device{}, hours: map[netip.Addr]hour{}}
}

// List is everybody remembered, the latest first.
func (d *Devices) List() []Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Device
	for _, m := range []map[netip.Addr]*Device{d.known, d.strangers} {
		for _, dev := range m {
			all = append(all, *dev)
		}
	}
	slices.SortFunc(all, func(a, b Device) int { return cmp.Or(b.Seen.Compare(a.Seen), a.Client.Compare(b.Client)) })
	return all
}

// saw notes a connection. Nobody is noted without one.
func (d *Devices) saw(client netip.Addr, service string) {
	if d == nil || !client.IsValid() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.strangers, client)
	if gone := note(d.known, maxDevices, client, service); gone.IsValid() {
		delete(d.hours, gone)
	}
}

// stranger notes somebody who may not connect.
func (d *Devices) stranger(client netip.Addr, service string) {
	if d == nil || !client.IsValid() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.known[client]; known {
		delete(d.known, client)
		delete(d.hours, client)
	}
	note(d.strangers, maxStrangers, client, service)
	dev := d.strangers[client]
	dev.Trouble, dev.TroubleAt = "its address is not in networks", dev.Seen
}

// note makes or refreshes an entry and says which one had to go for it.
func note(m map[netip.Addr]*Device, most int, client netip.Addr, service string) (gone netip.Addr) {
	dev := m[client]
	if dev == nil {
		if len(m) >= most {
			gone = oldest(m)
			delete(m, gone)
		}
		dev = &Device{Client: client}
		m[client] = dev
	}
	dev.Service, dev.Seen = service, time.Now().Round(0)
	return gone
}

func oldest(m map[netip.Addr]*Device) (addr netip.Addr) {
	var seen time.Time
	for a, dev := range m {
		if !addr.IsValid() || dev.Seen.Before(seen) {
			addr, seen = a, dev.Seen
		}
	}
	return addr
}

// mayWrite says whether a client may send another letter this hour.
func (d *Devices) mayWrite(client netip.Addr, most int) bool {
	if d == nil || most <= 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hours[client]
	return h.letters < most || time.Since(h.began) >= time.Hour
}

// wrote notes a letter that was accepted.
func (d *Devices) wrote(client netip.Addr, helo string, id relay.ID, l *letter) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dev := d.known[client]
	if dev == nil {
		return // forgotten meanwhile, for more than we remember
	}
	now := time.Now()
	dev.Helo, dev.ID, dev.From, dev.To, dev.Rcpts, dev.At = helo, id, l.from, l.to, l.rcpts, now.Round(0)
	dev.Letters++
	h := d.hours[client]
	if h.letters == 0 || now.Sub(h.began) >= time.Hour {
		h = hour{began: now}
	}
	h.letters++
	d.hours[client] = h
}

// failed notes what went wrong.
func (d *Devices) failed(client netip.Addr, helo, words string) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev := d.known[client]; dev != nil {
		dev.Helo = cmp.Or(helo, dev.Helo)
		dev.Trouble, dev.TroubleAt = words[:min(len(words), maxTrouble)], time.Now().Round(0)
	}
}

// because gives the next refusal words for somebody who stands before a device.
func (g *guard) because(format string, args ...any) {
	if g.set.profile.Devices != nil {
		g.words = fmt.Sprintf(format, args...)
	}
}

// witness notes a refusal.
func (g *guard) witness(r relay.Reply) {
	words := g.words
	g.words = ""
	if r.Code < 400 {
		return
	}
	if words == "" {
		words, _, _ = strings.Cut(r.Text, "\n")
	}
	g.set.profile.Devices.failed(g.peer.client.Addr(), g.peer.helo, words)
}

// rcptTrouble says why a recipient was refused.
func rcptTrouble(to relay.Address, err error) string {
	r, _ := replyTo(err)
	switch {
	case r.Status == relay.Status{5, 7, 1}:
		return "recipient not allowed: " + to.String()
	case r.Status == relay.Status{5, 1, 1}:
		return "recipient unknown: " + to.String()
	}
	return "recipient " + to.String() + ": " + r.Text
}

// listening is a TLS configuration that notes what the client asks for.
func (g *guard) listening(c *tls.Config, asked *[]uint16) *tls.Config {
	if g.set.profile.Devices == nil {
		return c
	}
	inner := c.GetConfigForClient
	c = c.Clone()
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		*asked = slices.Clone(h.SupportedVersions)
		if inner != nil {
			return inner(h)
		}
		return nil, nil
	}
	return c
}

// tlsTrouble says why a handshake failed. asked are the versions the client offered; nil before it
// said any.
func tlsTrouble(asked []uint16, least uint16, err error) string {
	if best := slices.MaxFunc(append([]uint16{0}, asked...), cmp.Compare); asked != nil && best < least {
		if best == 0 {
			return "asked for SSL, which is not safe any more"
		}
		return "asked for " + tls.VersionName(best) + ", which is not safe any more: TLS 1.2 is the least"
	}
	text := err.Error()
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "did not start TLS where TLS comes first"
	}
	switch {
	case strings.Contains(text, "remote error") && (strings.Contains(text, "certificate") || strings.Contains(text, "unknown")):
		return "does not accept our certificate: " + strings.TrimPrefix(text[strings.Index(text, "remote error"):], "remote error: tls: ")
	case strings.Contains(text, "no cipher suite"):
		return "asked only for ciphers that are not safe any more"
	}
	return "TLS failed: " + text
}
