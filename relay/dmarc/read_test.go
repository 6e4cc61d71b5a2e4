package dmarc

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// old is a report as many still send it: by RFC 7489, without a namespace.
const old = `<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE feedback>
<feedback>
  <report_metadata>
    <org_name> big.example </org_name><email>noreply@big.example</email>
    <report_id>1234567890</report_id>
    <date_range><begin>1763596800</begin><end> 1763683199 </end></date_range>
  </report_metadata>
  <policy_published><domain>Office.Example</domain><adkim>r</adkim><aspf>r</aspf><p>none</p><sp>none</sp><pct>100</pct></policy_published>
  <record>
    <row><source_ip>192.0.2.25</source_ip><count>12</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>pass</spf></policy_evaluated></row>
    <identifiers><header_from>office.example</header_from></identifiers>
    <auth_results><dkim><domain>office.example</domain><result>pass</result><selector>s1</selector></dkim><spf><domain>office.example</domain><result>pass</result></spf></auth_results>
  </record>
  <record>
    <row><source_ip>203.0.113.9</source_ip><count>3</count>
      <policy_evaluated><disposition>quarantine</disposition><dkim>fail</dkim><spf>fail</spf><reason><type>local_policy</type><comment>w` + "\xe4" + `hlerisch</comment></reason></policy_evaluated></row>
    <identifiers><envelope_from>Spam.Example</envelope_from><header_from>office.example</header_from></identifiers>
    <auth_results><spf><domain>spam.example</domain><result>softfail</result></spf></auth_results>
  </record>
</feedback>
`

var oldRecords = []Record{
	{Source: "192.0.2.25", Count: 12, Disposition: "none", DKIM: "pass", SPF: "pass", HeaderFrom: "office.example",
		AuthDKIM: []AuthDKIM{{Domain: "office.example", Selector: "s1", Result: "pass"}}, AuthSPF: []AuthSPF{{Domain: "office.example", Result: "pass"}}},
	{Source: "203.0.113.9", Count: 3, Disposition: "quarantine", DKIM: "fail", SPF: "fail", HeaderFrom: "office.example", EnvelopeFrom: "spam.example",
		Reasons: []Reason{{Type: "local_policy", Comment: "wählerisch"}}, AuthSPF: []AuthSPF{{Domain: "spam.example", Result: "softfail"}}},
}

func gzipped(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for _, p := range parts {
		io.WriteString(z, p)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, text := range files {
		w, err := z.Create(fmt.Sprintf("%d.xml", i))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// letterWith is a letter whose only part is an attachment, as Google sends it.
func letterWith(kind string, data []byte) []byte {
	return []byte("From: r@big.example\r\nSubject: Report Domain: office.example\r\nMIME-Version: 1.0\r\nContent-Type: " + kind +
		"; name=\"a.zip\"\r\nContent-Disposition: attachment; filename=\"a.zip\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		wrapped(data) + "\r\n")
}

func wrapped(data []byte) string {
	text := base64.StdEncoding.EncodeToString(data)
	var b strings.Builder
	for len(text) > 76 {
		b.WriteString(text[:76] + " \r\n") // the blank is seen in the wild
		text = text[76:]
	}
	return b.String() + text
}

func mixedWith(parts ...string) []byte {
	return []byte("From: r@big.example\nContent-Type: multipart/mixed; boundary=b\n\nx\n--b\nContent-Type: text/plain\n\n<feedback> is what we talk about\n--b\n" +
		strings.Join(parts, "\n--b\n") + "\n--b--\n")
}

func TestReadForms(t *testing.T) {
	t.Parallel()
	asUTF8 := strings.Replace(strings.Replace(old, "ISO-8859-1", "UTF-8", 1), "\xe4", "ä", 1)
	for name, data := range map[string][]byte{
		"xml":                   []byte(old),
		"xml in UTF-8 with BOM": []byte("\xef\xbb\xbf" + asUTF8),
		"with a namespace":      []byte(strings.Replace(asUTF8, "<feedback>", `<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0" xmlns:x="u:v">`, 1)),
		"with extensions":       []byte(strings.Replace(asUTF8, "<record>", "<extension><x>1</x></extension><record>", 1)),
		"gzip":                  gzipped(t, old),
		"zip":                   zipped(t, old),
		"zip in gzip":           gzipped(t, string(zipped(t, old))),
		"a letter with zip":     letterWith("application/zip", zipped(t, old)),
		"called otherwise":      letterWith("application/octet-stream", gzipped(t, old)),
		"a letter of parts":     mixedWith("Content-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n" + wrapped(gzipped(t, old))),
		"xml attached":          mixedWith("Content-Type: text/plain\nContent-Disposition: attachment; filename=a.xml\n\n" + asUTF8),
		"xml quoted-printable":  mixedWith("Content-Type: text/xml\nContent-Transfer-Encoding: quoted-printable\n\n" + strings.ReplaceAll(asUTF8, "=", "=3D")),
		"a letter in a letter":  mixedWith("Content-Type: message/rfc822\n\n" + string(letterWith("application/zip", zipped(t, old)))),
	} {
		got, err := Read(bytes.NewReader(data))
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %d reports, %v", name, len(got), err)
			continue
		}
		if diff := cmp.Diff(oldRecords, got[0].Records); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		m := Metadata{OrgName: "big.example", Email: "noreply@big.example", ReportID: "1234567890", Begin: 1763596800, End: 1763683199}
		if got[0].Metadata != m || got[0].Published.Domain != "office.example" || got[0].Published.P != "none" {
			t.Errorf("%s: %+v %+v", name, got[0].Metadata, got[0].Published)
		}
	}
}

// TestReadOthers: what is no report is said to be none, and what is broken is said to be so, beside
// what could be read.
func TestReadOthers(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"nothing":         "",
		"a text":          "hello",
		"a letter":        "From: a@b.c\n\n<feedback>is a word",
		"another letter":  "From: a@b.c\nContent-Type: text/html\n\n<feedback></feedback>",
		"other xml":       "<html></html>",
		"an archive of x": string(zipped(t, "hello")),
	} {
		if got, err := Read(strings.NewReader(data)); !errors.Is(err, ErrNone) || len(got) > 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, data := range map[string]string{
		"a broken gzip":   "\x1f\x8bx",
		"half a gzip":     string(gzipped(t, old)[:200]),
		"half a zip":      string(zipped(t, old)[:200]),
		"half a report":   old[:900],
		"no domain":       strings.Replace(old, "Office.Example", "", 1),
		"a count of much": strings.Replace(old, "<count>12<", "<count>99999999999999999999<", 1),
	} {
		if got, err := Read(strings.NewReader(data)); err == nil || errors.Is(err, ErrNone) || len(got) > 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	two := zipped(t, old[:900], old)
	if got, err := Read(bytes.NewReader(two)); len(got) != 1 || err == nil {
		t.Errorf("a good and a broken one: %d, %v", len(got), err)
	}
}

// endless is an XML report of so many octets in its records, as it streams by.
func endless(n int64) io.Reader {
	head := old[:strings.Index(old, "<record>")]
	return io.LimitReader(io.MultiReader(strings.NewReader(head), &repeater{text: old[strings.Index(old, "<record>"):strings.Index(old, "</feedback>")]}), n)
}

type repeater struct {
	text string
	at   int
}

func (r *repeater) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.text[r.at:])
		n, r.at = n+k, (r.at+k)%len(r.text)
	}
	return n, nil
}

// TestReadBombs: a small letter that unpacks to much costs little, and ends in ErrTooMuch.
func TestReadBombs(t *testing.T) {
	t.Parallel()
	pack := func(r io.Reader) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.Copy(z, r); err != nil {
			t.Fatal(err)
		}
		z.Close()
		return b.Bytes()
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = "x"
	}
	parts := strings.Repeat("--b\nContent-Type: application/zip\n\nx\n", 200)
	nested := gzipped(t, old)
	for range maxNesting + 2 {
		nested = gzipped(t, string(nested))
	}
	for name, data := range map[string][]byte{
		"records":      pack(endless(300 << 10)),
		"blanks":       pack(io.MultiReader(strings.NewReader(" <feedback>"), io.LimitReader(&repeater{text: "    "}, 300<<10))),
		"one element":  pack(io.MultiReader(strings.NewReader("<feedback><version>"), io.LimitReader(&repeater{text: "1111"}, 300<<10))),
		"more records": []byte("<feedback><policy_published><domain>a.b</domain></policy_published>" + strings.Repeat("<record/>", 1001) + "</feedback>"),
		"files":        zipped(t, many...),
		"parts":        []byte("Content-Type: multipart/mixed; boundary=b\n\n" + parts + "--b--\n"),
		"nested":       nested,
		"a whole disk": make([]byte, MaxLetter+1),
	} {
		if _, err := read(bytes.NewReader(data), 100<<10, 1000); !errors.Is(err, ErrTooMuch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	deep := strings.Repeat("<a>", 20_000)
	if _, err := Read(strings.NewReader("<feedback><record>" + deep)); err == nil {
		t.Error("a deep one is read")
	}
}

// FuzzRead: nothing that arrives makes the reader stumble, and what it finds is within its bounds
// and can be written again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(old))
	f.Add(gzipped(f, old))
	f.Add(zipped(f, old, "x"))
	f.Add(letterWith("application/zip", zipped(f, old)))
	f.Add(mixedWith("Content-Type: text/xml\n\n"+old, "Content-Type: multipart/mixed; boundary=c\n\n--c\n\n--c--"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := Read(bytes.NewReader(data))
		if len(found) == 0 && err == nil {
			t.Error("neither a report nor an error")
		}
		for _, r := range found {
			if len(r.Records) > maxRecords || r.Published.Domain == "" {
				t.Errorf("%d records about %q", len(r.Records), r.Published.Domain)
			}
			var b bytes.Buffer
			if err := r.write(&b); err != nil {
				t.Fatal(err)
			}
			again, err := Read(&b)
			if err != nil || len(again) != 1 || len(again[0].Records) != len(r.Records) {
				t.Fatalf("written anew it is %v, %v", again, err)
			}
		}
	})
}

func TestGolden(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/report.xml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(want))
	if err != nil || len(got) != 1 {
		t.Fatal(len(got), err)
	}
	var b bytes.Buffer
	if err := got[0].write(&b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()+"\n"); diff != "" {
		t.Error(diff)
	}
}
