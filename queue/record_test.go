package queue

import (
	"encoding"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"reflect"
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
			Accepted: at, Size: 1234, Body8Bit: true, UTF8: true, RequireTLS: true,
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

// wholeItem has something in every field that encode writes.
func wholeItem() *Item {
	it := sampleItem()
	it.Origin = relay.Origin{Client: netip.MustParseAddrPort("192.0.2.1:25"), Name: "a", Helo: "<b>", Proto: "ESMTP", TLS: "TLS1.3",
		User: "ann", Service: "smtp", Server: netip.MustParseAddrPort("[::1]:25"), Trusted: true}
	it.Rcpts[0].Mailbox = relay.Address{Local: "x", Domain: "y.example"}
	it.Last[0].Host, it.Last[0].TLS, it.Last[0].Way = "mx[192.0.2.7]:25", "TLS1.2", "IPv4, not IPv6: no route"
	it.Done = append(it.Done, relay.Result{Rcpt: relay.Postmaster, Outcome: relay.Failed, Reply: relay.Reply{Text: "é \x7f \u2028"}})
	it.Ret, it.EnvID, it.Auth, it.Hold, it.Via, it.Filter, it.Junk = relay.RetFull, "note 7", "spf=pass", "over the limit", "smart.example:587", "clamd=clean", true
	it.Told = it.Accepted
	it.Release, it.By = it.Accepted.Add(time.Hour), relay.DeliverBy{At: it.Accepted.Add(2 * time.Hour), Return: true, Trace: true}
	it.Rcpts[0].Notify, it.Rcpts[0].ORcpt, it.Last[0].DSN = relay.NotifySuccess|relay.NotifyDelay, "rfc822;b@one.example", true
	it.Rcpts[0].Junk = true
	return it
}

// set notes which fields of v that JSON shows have a value anywhere, and which have none so far.
func set(v reflect.Value, fields map[string]bool) {
	_, leaf := v.Interface().(encoding.TextMarshaler)
	switch {
	case v.Kind() == reflect.Slice && !leaf:
		for i := range v.Len() {
			set(v.Index(i), fields)
		}
	case v.Kind() == reflect.Struct && !leaf:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Tag.Get("json") == "-" {
				continue
			}
			name := v.Type().Name() + "." + f.Name
			fields[name] = fields[name] || !v.Field(i).IsZero()
			set(v.Field(i), fields)
		}
	}
}

// Without this a new field would be left to encoding/json, and nobody would see it.
func TestWholeItemIsWhole(t *testing.T) {
	it := wholeItem()
	fields := map[string]bool{}
	set(reflect.ValueOf(letterRecord{it.Envelope, it.Told, it.Last, it.Done}), fields)
	if len(fields) < 40 {
		t.Errorf("found %d fields", len(fields))
	}
	for name, yes := range fields {
		if !yes {
			t.Errorf("wholeItem has nothing in %s", name)
		}
	}
}

// What encode writes is read without encoding/json, or listing a long queue takes its time again.
func TestRecordsAreReadFast(t *testing.T) {
	for _, it := range []*Item{wholeItem(), sampleItem(), {Envelope: relay.Envelope{Rcpts: []relay.Recipient{}}}} {
		text, err := json.Marshal(letterRecord{it.Envelope, it.Told, it.Last, it.Done})
		if err != nil {
			t.Fatal(err)
		}
		p := recordReader{text: string(text)}
		if p.letter(); p.odd || p.at != len(text) {
			t.Errorf("stopped at %q", text[p.at:])
		}
	}
}

// Whatever a record holds, it is read as encoding/json reads it, or left to it.
func FuzzRecordJSON(f *testing.F) {
	for _, it := range []*Item{wholeItem(), sampleItem()} {
		text, err := json.Marshal(letterRecord{it.Envelope, it.Told, it.Last, it.Done})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, odd := range []string{`{}`, `{"id":"a","id":"b"}`, `{"ID":"a"}`, `{"size":01}`, `{"size":1e3}`, `{"size":-1}`, `{"id":"a",}`, `{,"id":"a"}`,
		`{"rcpts":null}`, `{"rcpts":[{}]}`, `{"rcpts":[{"addr":"@a,@b:c@d.example"}]}`, `{"from":"\u0061@b.example"}`, `{"from":"<a@b.example>"}`,
		`{"accepted":"2026-11-21T04:00:00Z"}`, `{"accepted":"\u0032026-11-21T04:00:00Z"}`, `{"accepted":null}`, "{\"id\":\"\xff\"}", "{\"id\":\"\n\"}",
		`{"last":[{"reply":{"status":"4.4"}}]}`, `{"last":[{"reply":{"status":""}}]}`, `{"origin":{"client":"","trusted":false}}`, `{"origin":{"trusted":1}}`,
		`{"utf8":true} `, `{"id":"a"}x`, `{"last":[1,]}`, `{"id":"\`} {
		f.Add([]byte(odd))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want letterRecord
		wantErr := json.Unmarshal(text, &want)
		got, err := decodeLetter(text)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v\nwant %+v", got, want)
		}
	})
}
