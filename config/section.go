package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// reader goes through a document and collects what is wrong with it.
type reader struct {
	name     string
	data     []byte
	wrong    []finding
	doubtful []finding
	sections []section
	// known are the names each table was asked for, by the table's path: they are the grammar,
	// and what "did you mean" draws from.
	known map[string][]string

	scores []span // the junk_score of users
}

// finding is a Complaint before its place has been looked up.
type finding struct {
	at  span
	say func() *problem // called for those that are shown: looking for a near word takes a while
}

// problem is the error of a function that reads one value: a sentence and, perhaps, a hint.
type problem struct{ text, hint string }

func (p *problem) Error() string { return p.text }

func wrong(hint, format string, args ...any) *problem {
	return &problem{text: fmt.Sprintf(format, args...), hint: hint}
}

func (r *reader) complain(at span, err *problem) {
	r.wrong = append(r.wrong, finding{at, func() *problem { return err }})
}

func (r *reader) warn(at span, hint, format string, args ...any) {
	p := wrong(hint, format, args...)
	r.doubtful = append(r.doubtful, finding{at, func() *problem { return p }})
}

// maxComplaints bounds what a file full of nonsense prints.
const maxComplaints = 100

// complaints puts findings in the order of the file and looks up their places.
func (r *reader) complaints(found []finding) []Complaint {
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.at.off, b.at.off) })
	if more := len(found) - maxComplaints; more > 0 {
		found = found[:maxComplaints+1]
		found[maxComplaints].say = func() *problem { return wrong("", "and %d more complaints from here on", more) }
	}
	var out []Complaint
	for _, f := range found {
		line, column, text := position(r.data, f.at)
		end := min(f.at.off+f.at.len, len(r.data))
		mark := len([]rune(string(r.data[min(f.at.off, end):end])))
		p := f.say()
		out = append(out, Complaint{File: r.name, Line: line, Column: column, Text: p.text, Hint: p.hint,
			Excerpt: excerpt(line, column, mark, text)})
	}
	return out
}

// section is a table being read: its values are asked for by name, and at the end whatever
// nobody asked for is an unknown key.
type section struct {
	*reader
	t    *table
	path string // as in a header; the names of domains and users are replaced by *
}

func (r *reader) section(t *table, path string) section {
	s := section{r, t, path}
	r.sections = append(r.sections, s)
	return s
}

// sub is the table called name; an empty one where there is none.
func (s section) sub(name string) section {
	path := s.below(name)
	e := s.ask(name)
	if e == nil {
		return s.section(newTable(s.t.at), path)
	}
	return s.section(s.tableOf(e.val, header(path)), path)
}

// tables reads the tables called name, [[name]] in the file, in their order and into c. Where there are
// none it reads an empty one without c, which makes the names known.
func tables[C any](s section, name string, c *C, read func(t section, c *C)) {
	path := s.below(name)
	e := s.ask(name)
	if e == nil {
		read(s.section(newTable(s.t.at), path), nil)
		return
	}
	items := []*value{e.val}
	if e.val.kind == kindList {
		items = e.val.items
	}
	for _, item := range items {
		t := s.section(s.tableOf(item, "[["+path+"]]"), path)
		if item.kind == kindTable {
			read(t, c)
		}
	}
}

// below is the path of a table in this one.
func (s section) below(name string) string { return strings.TrimPrefix(s.path+"."+name, ".") }

// tableOf is the table v holds. Anything else is complained about and read as an empty table.
func (s section) tableOf(v *value, header string) *table {
	if v.kind == kindTable {
		return v.table
	}
	s.complain(v.at, wrong("give it a header of its own: "+header, "%s where a table is needed", v.kind))
	return newTable(v.at)
}

// ask marks a name as known and returns its entry, nil if the file does not have it.
func (s section) ask(name string) *entry {
	if !slices.Contains(s.known[s.path], name) {
		s.known[s.path] = append(s.known[s.path], name)
	}
	e := s.t.get(name)
	if e != nil {
		e.used = true
	}
	return e
}

// one reads the value called name into dst, if the file has it and it is right. It returns its
// place.
func one[T any](s section, name string, dst *T, read func(*value) (T, *problem)) (at span, ok bool) {
	e := s.ask(name)
	if e == nil {
		return s.t.at, false
	}
	got, err := read(e.val)
	if err != nil {
		s.complain(e.val.at, err)
		return e.val.at, false
	}
	*dst = got
	return e.val.at, true
}

// placed is an element of a list and its place.
type placed[T any] struct {
	what T
	at   span
}

// many reads a list, or a single value as a list of one. present says whether the file has it.
func many[T any](s section, name string, read func(*value) (T, *problem)) (list []placed[T], present bool) {
	e := s.ask(name)
	if e == nil {
		return nil, false
	}
	return elements(s.reader, e.val, read), true
}

func elements[T any](r *reader, v *value, read func(*value) (T, *problem)) []placed[T] {
	items := v.items
	if v.kind != kindList {
		items = []*value{v}
	}
	var list []placed[T]
	for _, item := range items {
		got, err := read(item)
		if err != nil {
			r.complain(item.at, err)
			continue
		}
		list = append(list, placed[T]{got, item.at})
	}
	return list
}

func whats[T any](list []placed[T]) []T {
	var out []T
	for _, p := range list {
		out = append(out, p.what)
	}
	return out
}

// unknown complains about every key nobody asked for.
func (r *reader) unknown() {
	for _, s := range r.sections {
		for _, e := range s.t.entries {
			if !e.used {
				r.wrong = append(r.wrong, finding{e.at, func() *problem { return r.unknownKey(s, e) }})
			}
		}
	}
}

func (r *reader) unknownKey(s section, e *entry) *problem {
	where := "at the top of the file"
	if s.path != "" {
		where = "in " + header(s.path)
	}
	what := "setting"
	if e.val.kind == kindTable {
		what = "table"
	}
	p := wrong("", "there is no %s called %q %s", what, clip(e.name), where)
	home, elsewhere := r.home(e.name)
	switch near := nearest(e.name, r.known[s.path]); {
	case near != "" && what == "table":
		p.hint = fmt.Sprintf("did you mean %q?", near)
	case elsewhere && home == "":
		p.hint = fmt.Sprintf("%s belongs at the top of the file, before the first [table]", e.name)
	case elsewhere:
		p.hint = fmt.Sprintf("%s belongs in %s", e.name, header(home))
	case near != "":
		p.hint = fmt.Sprintf("did you mean %q?", near)
	case len(r.known[s.path]) > 0:
		p.hint = "known here: " + strings.Join(slices.Sorted(slices.Values(r.known[s.path])), ", ")
	}
	return p
}

// header writes the path of a table as the file does.
func header(path string) string {
	switch {
	case path == "route", path == "tls.pair", path == "listen_device", path == "filter.milter", path == "outbound.limit":
		return "[[" + path + "]]"
	case strings.HasPrefix(path, "users.*"):
		return `[users."ann@your.domain"` + strings.TrimPrefix(path, "users.*") + "]"
	case strings.HasPrefix(path, "relay_domains.*"):
		return `[relay_domains."your.partner"]`
	case strings.HasPrefix(path, "domains.*"):
		return `[domains."your.domain"` + strings.TrimPrefix(path, "domains.*") + "]"
	case path == "gate.list":
		return "[[gate.list]]"
	}
	return "[" + path + "]"
}

// home finds the table that does know a name, if there is just one. A device listener has its own of
// what others have too, and nobody lands there by mistake.
func (r *reader) home(name string) (path string, ok bool) {
	n := 0
	for p, names := range r.known {
		if p != "listen_device" && slices.Contains(names, name) {
			path = p
			n++
		}
	}
	return path, n == 1
}

// clip keeps foreign text in a sentence short.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// nearest is the word that name was probably meant to be; empty if none is near.
func nearest(name string, words []string) string {
	plain := strings.NewReplacer("_", "", "-", "", " ", "")
	best, least := "", 1+min(3, len(name)/3)
	for _, w := range words {
		if strings.EqualFold(plain.Replace(name), plain.Replace(w)) || len(w) > 3 && strings.HasPrefix(name, w) {
			return w
		}
		if d := distance(strings.ToLower(name), w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of letters to add, drop, change or swap with a neighbour to get from a
// to b (optimal string alignment), for short words; a long one is far from everything.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
