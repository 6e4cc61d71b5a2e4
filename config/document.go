package config

import (
	"errors"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// The decoder of go-toml stops at the first value of a wrong type and forgets where the others
// stood, so a second complaint would have to wait for a second try. Therefore go-toml decides
// whether the document is TOML at all, and this file makes of its syntax tree a tree of ours
// in which every key and value keeps its place.

// kind is what a value looks like in the file.
type kind int

const (
	kindOther kind = iota // dates and times, of which we have none
	kindString
	kindInteger
	kindFloat
	kindBool
	kindList
	kindTable
)

func (k kind) String() string {
	return [...]string{"a date or time", "a string", "a number", "a number with a fraction",
		"true or false", "a list", "a table"}[k]
}

// value is anything that stands behind a key or in a list.
type value struct {
	at    span
	kind  kind
	text  string   // a string's contents; any other scalar as written
	items []*value // of a list
	table *table   // of a table
}

// entry is a key of a table with its value.
type entry struct {
	name string
	at   span // the key
	val  *value
	used bool // somebody asked for it
}

// table is a TOML table, however it was written: as a header, dotted or inline.
type table struct {
	at      span
	entries []*entry // in the order of the file
	index   map[string]*entry
}

func newTable(at span) *table { return &table{at: at, index: map[string]*entry{}} }

func (t *table) get(name string) *entry { return t.index[name] }

// parseDocument makes the tree. Its error is a *syntaxError.
func parseDocument(data []byte) (*table, error) {
	var whole map[string]any
	if err := toml.Unmarshal(data, &whole); err != nil {
		return nil, newSyntaxError(data, err)
	}
	b := builder{root: newTable(span{})}
	b.parser.Reset(data)
	current := b.root
	for b.parser.NextExpression() {
		e := b.parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			current = b.open(e)
		case unstable.KeyValue:
			b.keyValue(current, e)
		}
	}
	if err := b.parser.Error(); err != nil {
		return nil, newSyntaxError(data, err)
	}
	return b.root, nil
}

// syntaxError is a document that is not TOML.
type syntaxError struct {
	at   span
	text string
}

func (e *syntaxError) Error() string { return e.text }

func newSyntaxError(data []byte, err error) *syntaxError {
	e := &syntaxError{text: strings.TrimPrefix(err.Error(), "toml: ")}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := decode.Position()
		e.at = span{offset(data, line, column), 1}
	}
	return e
}

// offset is the place of a line and a column, both from 1, the column in octets.
func offset(data []byte, line, column int) int {
	off := 0
	for ; line > 1 && off < len(data); off++ {
		if data[off] == '\n' {
			line--
		}
	}
	return min(off+column-1, len(data))
}

// builder turns go-toml's nodes into ours. The nodes live only until the next expression.
type builder struct {
	parser unstable.Parser
	root   *table
}

func at(r unstable.Range) span { return span{int(r.Offset), int(r.Length)} }

// open finds or makes the table of a [header] or [[header]].
func (b *builder) open(node *unstable.Node) *table {
	t := b.root
	for it := node.Key(); it.Next(); {
		key := it.Node()
		e := t.get(string(key.Data))
		if node.Kind == unstable.ArrayTable && it.IsLast() {
			return appendTable(t, e, key)
		}
		t = descend(t, e, key)
	}
	return t
}

// appendTable adds one more table to the list of tables that e holds, or to a new one.
func appendTable(parent *table, e *entry, key *unstable.Node) *table {
	if e == nil {
		e = newEntry(parent, key, &value{at: at(key.Raw), kind: kindList})
	}
	t := newTable(at(key.Raw))
	e.val.items = append(e.val.items, &value{at: t.at, kind: kindTable, table: t})
	return t
}

// descend goes one key down: into the table e holds, into the last of its tables, or into a new
// one.
func descend(parent *table, e *entry, key *unstable.Node) *table {
	if e != nil && e.val.table != nil {
		return e.val.table
	}
	if e != nil && len(e.val.items) > 0 && e.val.items[len(e.val.items)-1].table != nil {
		return e.val.items[len(e.val.items)-1].table
	}
	t := newTable(at(key.Raw))
	newEntry(parent, key, &value{at: t.at, kind: kindTable, table: t})
	return t
}

func newEntry(parent *table, key *unstable.Node, v *value) *entry {
	e := &entry{name: string(key.Data), at: at(key.Raw), val: v}
	parent.entries = append(parent.entries, e)
	parent.index[e.name] = e
	return e
}

func (b *builder) keyValue(t *table, node *unstable.Node) {
	for it := node.Key(); it.Next(); {
		key := it.Node()
		if it.IsLast() {
			newEntry(t, key, b.value(node.Value(), at(key.Raw)))
			return
		}
		t = descend(t, t.get(string(key.Data)), key)
	}
}

// value copies a value node. Lists carry no place of their own in go-toml: key is used instead.
func (b *builder) value(node *unstable.Node, key span) *value {
	v := &value{at: at(node.Raw), text: string(node.Data)}
	if v.at.len == 0 {
		v.at = key
	}
	switch node.Kind {
	case unstable.String:
		v.kind = kindString
	case unstable.Integer:
		v.kind = kindInteger
	case unstable.Float:
		v.kind = kindFloat
	case unstable.Bool:
		v.kind = kindBool
	case unstable.Array:
		v.kind = kindList
		for it := node.Children(); it.Next(); {
			v.items = append(v.items, b.value(it.Node(), key))
		}
	case unstable.InlineTable:
		v.kind, v.table = kindTable, newTable(v.at)
		for it := node.Children(); it.Next(); {
			b.keyValue(v.table, it.Node())
		}
	}
	return v
}
