package policy

import (
	"strings"
	"testing"

	"relayd/relay"
)

// FuzzAuthRes: whatever strangers wrote, the field stays one field, says what we found and nothing
// else, and its reader sees our name.
func FuzzAuthRes(f *testing.F) {
	f.Add("ann@example.org", "the body has been changed", "p=reject")
	f.Add("\"a\\\" \"@b", "x\r\nBcc: y", "(\\)")
	f.Add("a;dkim=pass", "\"; dmarc=pass", ") dmarc=pass (")
	f.Add("é\xff\u0085", strings.Repeat("é", 400), "")
	f.Fuzz(func(t *testing.T, value, reason, note string) {
		id := relay.Domain("mail.office.test")
		field := Field(id, []Finding{
			{Method: "spf", Result: Fail, Comment: note, Reason: reason, Props: []Prop{{"smtp.mailfrom", value}}},
			{Method: "dmarc", Result: None},
		})
		if all := fields(field); len(all) != 1 || strings.Count(field, "\r") != strings.Count(field, "\r\n") || strings.Count(field, "\n") != strings.Count(field, "\r\n") {
			t.Fatalf("%q is %d fields", field, len(all))
		}
		_, text, _ := strings.Cut(field, ":")
		if !Claims(text, id) || Claims(text, "other.test") {
			t.Fatalf("%q is not read as ours", field)
		}
		if got := results(text); len(got) != 2 || got[0] != "spf=fail" || got[1] != "dmarc=none" {
			t.Fatalf("%q says %q", field, got)
		}
		for line := range strings.Lines(field) {
			if len(line) > 998 {
				t.Fatalf("a line of %d octets", len(line))
			}
		}
	})
}

// FuzzReceivedSPF: whatever strangers call themselves, it stays one field.
func FuzzReceivedSPF(f *testing.F) {
	f.Add("mx.example", "ann", "example.org", "pass")
	f.Add("a b\r\nBcc: x", "\"", "[1.2.3.4]", "temperror")
	f.Fuzz(func(t *testing.T, helo, local, domain, result string) {
		field := Findings{sender: spfSender{letter: Letter{Helo: helo, From: relay.Address{Local: local, Domain: relay.Domain(domain)}},
			identity: "mailfrom", result: Result(strings.Map(lower, result))}}.ReceivedSPF("mail.office.test")
		if all := fields(field); len(all) != 1 || strings.Count(field, "\r") != strings.Count(field, "\r\n") || strings.Count(field, "\n") != strings.Count(field, "\r\n") {
			t.Fatalf("%q is %d fields", field, len(all))
		}
		for line := range strings.Lines(field) {
			if len(line) > 998 {
				t.Fatalf("a line of %d octets", len(line))
			}
		}
	})
}

// lower keeps the letters that results are made of.
func lower(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// results reads the method=result pairs of a field: what stands in quotes and comments is passed over.
func results(text string) (all []string) {
	var plain strings.Builder
	depth, inQuotes := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && (inQuotes || depth > 0):
			i++
		case c == '"' && depth == 0:
			inQuotes = !inQuotes
		case inQuotes:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0:
			plain.WriteByte(c)
		}
	}
	for _, part := range strings.Split(plain.String(), ";")[1:] {
		all = append(all, strings.Fields(part)[0])
	}
	return all
}

// FuzzClaims: a field that any reader takes for ours is taken for ours.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{" mail.office.test; x", "\r\n\tMAIL.office.test", " (a (b)) \"mail.office.test\" 1; x", "(\\)) mail.office.test", " other.test; mail.office.test", "\"mail.\r\n office.test\"", "mail.office.test.;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Claims(s, "mail.office.test")
		for _, forged := range []string{"mail.office.test; " + s, "\r\n mail.office.test (" + s, "(c) \"mail.office.test\"" + s} {
			if !Claims(forged, "mail.office.test") {
				t.Errorf("%q is not taken for ours", forged)
			}
		}
		if got && !strings.Contains(strings.ToLower(unfoldAll(s)), "mail.office.test") {
			t.Errorf("%q is taken for ours", s)
		}
	})
}

func unfoldAll(s string) string { return strings.NewReplacer("\r", "", "\n", "", "\\", "").Replace(s) }

// FuzzRecord: no record makes the parser stumble, and none asks for more than it says.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{"v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; aspf=r; t=y; psd=n", "v=DMARC1", "v=DMARC1;p=", "V = DMARC1 ; P = Reject ;", "v=dmarc1; p=reject", "v=DMARC1; p=reject; p=none", "v=DMARC1; sp=nonsense; p=reject"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseRecord(s)
		if !ok && r != (record{}) {
			t.Errorf("%q is no record and says %+v", s, r)
		}
		if ok && !strings.Contains(s, "DMARC1") {
			t.Errorf("%q is taken for a record", s)
		}
		if (r.p == WishReject || r.sp == WishReject || r.np == WishReject) && !strings.Contains(strings.ToLower(s), "reject") {
			t.Errorf("%q asks for %+v", s, r)
		}
		if r.useless && r.p != WishNone {
			t.Errorf("%q is useless and asks for %+v", s, r)
		}
	})
}

// FuzzSignature: no DKIM-Signature field and no key record make the readers stumble.
func FuzzSignature(f *testing.F) {
	f.Add("DKIM-Signature: v=1; a=rsa-sha256; d=a.b; s=c; h=from; bh=AA==; b=AA==\r\n", "v=DKIM1; p=AA==", "From: a\r\n")
	f.Fuzz(func(_ *testing.T, field, record, header string) {
		s := readSignature(field, now1)
		if s.result == "" {
			s.key, _ = s.readKey([]string{record})
			b := newBodyHash(s.body)
			b.write([]byte(header))
			l := letter{header: fields(header)}
			for i := range l.bodies {
				l.bodies[i], l.sums[i] = b, b.close()
			}
			s.verify(&l)
		}
	})
}
