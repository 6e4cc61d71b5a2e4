package dmarc

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

// What one letter or file may cost, whatever it claims to hold.
const (
	MaxLetter  = 32 << 20 // octets as they came, compressed
	maxXML     = 64 << 20 // octets of all reports in it together, unpacked
	maxRecords = 100_000  // of one report
	maxReports = 50
	maxParts   = 100 // of a letter, and files of an archive
	maxNesting = 5   // of multiparts, letters and archives in each other
)

// ErrNone says that there is no report in what was read; ErrTooMuch that there is more than anybody
// who reports would send.
var (
	ErrNone    = errors.New("there is no DMARC aggregate report in it")
	ErrTooMuch = errors.New("it is too large for a DMARC aggregate report")
)

// Read returns the reports in r, which is a letter with reports attached, or a report itself: as
// XML, or in a gzip or zip archive. What it is, its first octets say, because what senders call it
// is often wrong. Where some can be read and others cannot, both come back, the reports and the
// error; an error alone is ErrNone, ErrTooMuch or says what is broken.
func Read(r io.Reader) ([]Report, error) { return read(r, maxXML, maxRecords) }

func read(r io.Reader, octets int64, records int) ([]Report, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxLetter+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxLetter {
		return nil, ErrTooMuch
	}
	f := &finder{left: octets, records: records, parts: maxParts}
	err = f.look(data, 0)
	if len(f.found) == 0 && err == nil {
		err = ErrNone
	}
	return f.found, err
}

// finder looks for reports; what is left of its budget is for everything it still finds.
type finder struct {
	found []Report
	left  int64 // octets of XML
	parts int

	records int // of one report
}

// look takes one thing for what it looks like.
func (f *finder) look(data []byte, depth int) error {
	if f.parts--; f.parts < 0 || depth > maxNesting || len(f.found) >= maxReports {
		return ErrTooMuch
	}
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		return f.gunzip(data, depth)
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		return f.unzip(data, depth)
	case isXML(data):
		return f.report(bytes.NewReader(data))
	}
	return f.letter(data, depth)
}

var byteOrder = []byte("\xef\xbb\xbf")

func isXML(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(data, byteOrder), " \t\r\n"), []byte("<"))
}

func (f *finder) gunzip(data []byte, depth int) error {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("the gzip archive is broken: %w", err)
	}
	return f.unpacked(z, depth)
}

func (f *finder) unzip(data []byte, depth int) error {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fmt.Errorf("the zip archive is broken: %w", err)
	}
	var errs []error
	for _, file := range z.File {
		if file.FileInfo().IsDir() {
			continue
		}
		if f.parts--; f.parts < 0 {
			return errors.Join(append(errs, ErrTooMuch)...)
		}
		r, err := file.Open()
		if err != nil {
			errs = append(errs, fmt.Errorf("the zip archive is broken: %w", err))
			continue
		}
		errs = append(errs, f.unpacked(r, depth))
		r.Close()
	}
	return errors.Join(errs...)
}

// unpacked reads what came out of an archive: a report, as a stream, or something that is none.
func (f *finder) unpacked(r io.Reader, depth int) error {
	b := bufio.NewReaderSize(r, 4<<10)
	head, err := b.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("the archive is broken: %w", err)
	}
	if isXML(head) {
		return f.report(b)
	}
	if !bytes.HasPrefix(head, []byte("PK\x03\x04")) && !bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		return nil
	}
	// Some pack a zip archive into a gzip one.
	data, err := io.ReadAll(io.LimitReader(b, min(f.left, MaxLetter)+1))
	if err != nil {
		return fmt.Errorf("the archive is broken: %w", err)
	}
	if f.left -= int64(len(data)); f.left < 0 || len(data) > MaxLetter {
		return ErrTooMuch
	}
	return f.look(data, depth+1)
}

// report reads one report as it streams by.
func (f *finder) report(r io.Reader) error {
	counted := &budget{r: r, left: &f.left}
	report, err := readXML(counted, f.records)
	if counted.over {
		return ErrTooMuch
	}
	if err != nil {
		return err
	}
	f.found = append(f.found, report)
	return nil
}

// budget ends when all of it is used up.
type budget struct {
	r    io.Reader
	left *int64
	over bool
}

func (b *budget) Read(p []byte) (int, error) {
	if *b.left <= 0 {
		b.over = true
		return 0, ErrTooMuch
	}
	n, err := b.r.Read(p[:min(int64(len(p)), *b.left)])
	*b.left -= int64(n)
	return n, err
}

// readXML reads element by element, so that a report costs what its records do and nothing else.
func readXML(r io.Reader, records int) (Report, error) {
	d := xml.NewDecoder(r)
	d.CharsetReader = charset
	var report Report
	root := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && root {
			return report, report.check()
		}
		if err != nil {
			return Report{}, fmt.Errorf("the report is broken: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !root {
			if root = start.Name.Local == "feedback"; !root {
				return Report{}, ErrNone
			}
			continue
		}
		if start.Name.Local == "record" && len(report.Records) >= records {
			return Report{}, ErrTooMuch
		}
		if err := report.element(d, start); err != nil {
			return Report{}, fmt.Errorf("the report is broken: %w", err)
		}
	}
}

func (r *Report) element(d *xml.Decoder, start xml.StartElement) error {
	switch start.Name.Local {
	case "version":
		return d.DecodeElement(&r.Version, &start)
	case "report_metadata":
		return d.DecodeElement(&r.Metadata, &start)
	case "policy_published":
		return d.DecodeElement(&r.Published, &start)
	case "record":
		var rec Record
		if err := d.DecodeElement(&rec, &start); err != nil {
			return err
		}
		rec.trim()
		r.Records = append(r.Records, rec)
		return nil
	}
	return d.Skip()
}

// trim takes away the white space that some write into elements, and the capitals.
func (r *Record) trim() {
	for _, s := range []*string{&r.Source, &r.Disposition, &r.DKIM, &r.SPF, &r.EnvelopeFrom, &r.EnvelopeTo, &r.HeaderFrom} {
		*s = strings.ToLower(strings.TrimSpace(*s))
	}
}

func (r *Report) check() error {
	r.Published.Domain = strings.ToLower(strings.TrimSpace(r.Published.Domain))
	r.Metadata.OrgName, r.Metadata.ReportID = strings.TrimSpace(r.Metadata.OrgName), strings.TrimSpace(r.Metadata.ReportID)
	if r.Published.Domain == "" {
		return errors.New("the report names no domain")
	}
	return nil
}

// charset reads the character sets of one octet as Latin-1: what a report says is ASCII.
func charset(name string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(name) {
	case "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "latin1", "windows-1252":
		return &latin1{r: bufio.NewReader(r)}, nil
	}
	return nil, fmt.Errorf("the character set %.40q is unknown", name)
}

type latin1 struct {
	r    io.ByteReader
	rest []byte
}

func (l *latin1) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(l.rest) == 0 {
			c, err := l.r.ReadByte()
			if err != nil {
				if n > 0 {
					return n, nil
				}
				return 0, err
			}
			l.rest = []byte(string(rune(c)))
		}
		k := copy(p[n:], l.rest)
		n, l.rest = n+k, l.rest[k:]
	}
	return n, nil
}

// letter looks through the parts of a letter.
func (f *finder) letter(data []byte, depth int) error {
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		return nil // no letter either: there is no report in it
	}
	return f.part(m.Header.Get, m.Body, depth)
}

// part looks at a part by its header.
func (f *finder) part(get func(string) string, body io.Reader, depth int) error {
	if depth > maxNesting {
		return ErrTooMuch
	}
	kind, params, _ := mime.ParseMediaType(get("Content-Type"))
	if strings.HasPrefix(kind, "multipart/") && params["boundary"] != "" {
		return f.multipart(multipart.NewReader(body, params["boundary"]), depth)
	}
	if kind == "text/plain" && !attached(get("Content-Disposition")) || kind == "text/html" {
		return nil
	}
	data, err := io.ReadAll(decoder(get("Content-Transfer-Encoding"), body))
	if err != nil {
		return fmt.Errorf("an attachment is broken: %w", err)
	}
	if kind == "" && depth == 0 || kind == "text/plain" && !isXML(data) {
		return nil // a letter's text
	}
	return f.look(data, depth+1)
}

func attached(disposition string) bool {
	kind, params, _ := mime.ParseMediaType(disposition)
	return kind == "attachment" || params["filename"] != ""
}

func (f *finder) multipart(r *multipart.Reader, depth int) error {
	var errs []error
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("the letter is broken: %w", err))...)
		}
		if f.parts--; f.parts < 0 {
			return errors.Join(append(errs, ErrTooMuch)...)
		}
		errs = append(errs, f.part(p.Header.Get, p, depth+1))
	}
}

func decoder(encoding string, r io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, &withoutSpace{r})
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// withoutSpace leaves out what may stand between the characters of base64 (RFC 2045 §6.8); the
// library knows line ends alone.
type withoutSpace struct{ r io.Reader }

func (w *withoutSpace) Read(p []byte) (int, error) {
	for {
		n, err := w.r.Read(p)
		kept := 0
		for _, c := range p[:n] {
			if c != ' ' && c != '\t' {
				p[kept] = c
				kept++
			}
		}
		if kept > 0 || err != nil || len(p) == 0 {
			return kept, err
		}
	}
}
