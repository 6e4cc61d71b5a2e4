package queue

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relayd/relay"
)

func sampleItem() *Item {
	at := time.Date(2026, 11, 21, 4, 0, 0, 123456789, time.UTC)
	bob := relay.Address{Local: `bob "b" o`, Domain: "xn--bcher-kva.example"}
	return &Item{
		Envelope: relay.Envelope{
			ID: relay.NewID(at), From: relay.Address{Local: "ann", Domain: "office.example"},
			Rcpts:    []relay.Recipient{{Addr: bob, Orig: "BOB@bücher.example"}},
			Origin:   relay.Origin{Client: netip.MustParseAddrPort("[2001:db8::1]:4711"), Helo: "h", Trusted: true},
			Accepted: at, Size: 1234, Body8Bit: true, UTF8: true,
		},
		Domain: bob.Domain, Attempts: 3, Next: at.Add(time.Hour), Held: true, Warned: true,
		Last: []relay.Result{{Rcpt: bob, Outcome: relay.Deferred, At: at,
			Reply: relay.Reply{Code: 450, Status: relay.Status{4, 2, 1}, Text: "later\nplease"}}},
	}
}

var sameItem = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func TestRecordRoundTrip(t *testing.T) {
	it := sampleItem()
	b, err := encode(it, 0xdeadbeef)
	if err != nil {
		t.Fatal(err)
	}
	got, h, err := decode(it.Key(), b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(*it, got, sameItem); d != "" {
		t.Error(d)
	}
	if h.sum != 0xdeadbeef || h.attempts != 3 {
		t.Errorf("header %+v", h)
	}
	other := it.Key()
	other.Domain = "other.example"
	if _, _, err := decode(other, b); err == nil {
		t.Error("decoded under another key")
	}
}

// Any one octet changed or cut off is noticed.
func TestRecordChecksum(t *testing.T) {
	it := sampleItem()
	b, err := encode(it, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0x10
		if _, err := decodeHeader(it.Key().String(), b); err == nil {
			t.Errorf("octet %d changed unnoticed", i)
		}
		b[i] ^= 0x10
		if _, err := decodeHeader(it.Key().String(), b[:i]); err == nil {
			t.Errorf("cut to %d octets unnoticed", i)
		}
	}
}

func TestHugeReplyIsClipped(t *testing.T) {
	it := sampleItem()
	huge := make([]byte, 1<<20)
	for i := range huge {
		huge[i] = "é"[i%2]
	}
	it.settle([]relay.Result{{Rcpt: it.Rcpts[0].Addr, Outcome: relay.Deferred, Reply: relay.Reply{Text: string(huge)}}})
	if n := len(it.Last[0].Reply.Text); n > maxReply || n < maxReply-4 || len(it.Last) != 1 {
		t.Errorf("kept %d octets in %d results", n, len(it.Last))
	}
}

// Garbage never panics, and whatever decodes encodes to something that decodes to the same item.
// The checksum is put right, or the fuzzer would never get past it.
func FuzzRecord(f *testing.F) {
	it := sampleItem()
	b, err := encode(it, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Add(append(make([]byte, headerLen), "{}"...))
	key := it.Key()
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeHeader(key.String(), b)
		if len(b) < headerLen {
			return
		}
		b[0] = recordVersion
		binary.BigEndian.PutUint32(b[2:], recordSum(key.String(), b))
		it, h, err := decode(key, b)
		if err != nil {
			return
		}
		again, err := encode(&it, h.sum)
		if err != nil {
			return // a time JSON cannot write; Take and Settle set such an item aside
		}
		got, h2, err := decode(key, again)
		if err != nil {
			t.Fatalf("its own encoding does not decode: %v", err)
		}
		if d := cmp.Diff(it, got, sameItem); d != "" || h != h2 {
			t.Fatal(d, h, h2)
		}
		if third, _ := encode(&got, h2.sum); string(third) != string(again) {
			t.Fatal("two encodings of one item")
		}
	})
}
