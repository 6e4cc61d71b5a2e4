package ctl

import (
	"io"
	"strings"
	"unicode/utf8"
)

// lookAhead is how many rows decide how wide the columns are. Later rows stream through, so that a
// long list neither waits nor is held in memory.
const lookAhead = 100

// table writes rows in columns, the last one as long as it likes or as the terminal is wide.
type table struct {
	app    *app
	out    io.Writer
	header []string
	width  []int
	rows   []row
	open   bool // the header is out
	err    error
}

type row struct {
	cells  []string
	styles []style
}

func (a *app) table(header ...string) *table {
	t := &table{app: a, out: a.Stdout, header: header, width: make([]int, len(header))}
	t.measure(header)
	return t
}

// add writes a row, sooner or later; styles go with the cells as far as there are any.
func (t *table) add(cells []string, styles ...style) {
	t.measure(cells)
	t.rows = append(t.rows, row{cells, styles})
	if t.open || len(t.rows) == lookAhead {
		t.flush()
	}
}

func (t *table) measure(cells []string) {
	for i, c := range cells {
		t.width[i] = max(t.width[i], utf8.RuneCountInString(c))
	}
}

// flush writes what is held back.
func (t *table) flush() error {
	if !t.open && len(t.rows) > 0 {
		t.open = true
		styles := make([]style, len(t.header))
		for i := range styles {
			styles[i] = bold
		}
		t.write(row{t.header, styles})
	}
	for _, r := range t.rows {
		t.write(r)
	}
	t.rows = t.rows[:0]
	return t.err
}

func (t *table) write(r row) {
	var b strings.Builder
	column := 0
	for i, cell := range r.cells {
		last := i == len(r.cells)-1
		if last && t.app.Width > 0 {
			cell = cut(cell, t.app.Width-column)
		}
		if i < len(r.styles) {
			b.WriteString(t.app.paint(r.styles[i], cell))
		} else {
			b.WriteString(cell)
		}
		if !last {
			pad := t.width[i] - utf8.RuneCountInString(cell) + 2
			b.WriteString(strings.Repeat(" ", pad))
			column += t.width[i] + 2
		}
	}
	if t.err == nil {
		_, t.err = io.WriteString(t.out, strings.TrimRight(b.String(), " ")+"\n")
	}
}

// cut shortens text to n columns; below ten there is no use in trying.
func cut(text string, n int) string {
	if n < 10 || utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}
