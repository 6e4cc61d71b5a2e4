package maildir

import (
	"strings"
	"testing"
	"time"

	"relayd/relay"
)

// FuzzName: no file name in a maildir makes us stumble, whoever put it there. What identifies a
// letter does not change with its flags, what we write we read back, and a unique-id fits POP3.
func FuzzName(f *testing.F) {
	f.Add("1795239600.R01m7yadb3hk7r9w9.mail.office.test,S=10,W=12:2,RS", int64(10), "mail.office.test")
	f.Add("a,S=,W=-1:2,", int64(0), "a/b:c,d\x00é")
	f.Add(":", int64(1)<<62, strings.Repeat("h", 300))
	f.Add("..,S=9223372036854775808", int64(-1), "")
	f.Fuzz(func(t *testing.T, file string, size int64, hostname string) {
		n := parseName(file)
		if n.base+n.info != file {
			t.Fatalf("%q became %q and %q", file, n.base, n.info)
		}
		for _, key := range []string{"S", "W"} {
			if v, ok := n.field(key); ok && v < 0 {
				t.Errorf("%q has a %s of %d", file, key, v)
			}
		}
		if u := n.uid(); u == "" || len(u) > maxUID || !printable(u) {
			t.Errorf("%q has the unique-id %q", file, u)
		}
		seen := parseName(n.withSeen())
		if seen.base != n.base || seen.uid() != n.uid() || seen.withSeen() != n.withSeen() || !strings.Contains(seen.info, "S") {
			t.Errorf("%q, seen, is %q, and then %q", file, n.withSeen(), seen.withSeen())
		}
		n.seconds()
		n.id()

		id := relay.NewID(time.Unix(size&0xffffffff, 0))
		own := uniquePart(id, time.Unix(size, 0), hostPart(hostname)) + sizePart(size&^(-1<<63), 7)
		n = parseName(own)
		s, okS := n.field("S")
		w, okW := n.field("W")
		if n.base != own || n.id() != id || n.seconds() != size || !okS || s != size&^(-1<<63) || !okW || w != 7 {
			t.Errorf("%q reads back as %q of %d, S=%d, W=%d", own, n.id(), n.seconds(), s, w)
		}
		if len(own) > 250 || strings.ContainsAny(own, "/\x00:") || own[0] == '.' {
			t.Errorf("%q cannot be a file name in a maildir", own)
		}
	})
}
