//go:build peers

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// table is a Markdown table that is also readable as it stands.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

// add takes anything: durations and rates are rounded to what the eye wants.
func (t *table) add(cells ...any) {
	var row []string
	for _, c := range cells {
		row = append(row, cell(c))
	}
	t.rows = append(t.rows, row)
}

// The units of cells.
type (
	ratio float64 // ours / theirs
	rate  float64 // a second
	octet int64
)

func cell(c any) string {
	switch v := c.(type) {
	case rate:
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f", float64(v))
	case ratio:
		if v == 0 || v != v {
			return "-"
		}
		return fmt.Sprintf("%.2f", float64(v))
	case octet:
		return size(int64(v))
	case time.Duration:
		return milliseconds(v)
	case float64:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprint(c)
}

func milliseconds(d time.Duration) string {
	ms := float64(d.Microseconds()) / 1000
	if ms >= 100 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2g ms", ms)
}

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 10<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func (t *table) print(w io.Writer) {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c), 3)
		}
	}
	line := func(row []string) {
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i == 0 {
				fmt.Fprintf(w, "| %s%s |", c, pad)
			} else {
				fmt.Fprintf(w, " %s%s |", pad, c)
			}
		}
		fmt.Fprintln(w)
	}
	line(t.head)
	for i, n := range width {
		if i == 0 {
			fmt.Fprintf(w, "|:%s-|", strings.Repeat("-", n))
		} else {
			fmt.Fprintf(w, "-%s:|", strings.Repeat("-", n))
		}
	}
	fmt.Fprintln(w)
	for _, row := range t.rows {
		line(row)
	}
	fmt.Fprintln(w)
}

// paper is where the tables go.
type paper struct{ w io.Writer }

func newPaper(tb testing.TB, title string, versions ...string) *paper {
	r := &paper{os.Stdout}
	if *peersOut != "" {
		f, err := os.OpenFile(*peersOut, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		r.w = io.MultiWriter(os.Stdout, f)
	}
	r.say("### %s\n\n%s; %s.\n", title, machine(tb.TempDir()), strings.Join(versions, ", "))
	return r
}

func (r *paper) say(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

func (r *paper) table(title string, t *table) {
	r.say("%s\n", title)
	t.print(r.w)
}

// machine describes where and when.
func machine(dir string) string {
	model := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	unix.Sysinfo(&info)
	var u unix.Utsname
	unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	loadNow, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%s; %d x %s, %.0f GiB, Linux %s, %s, load average %s before; %s", time.Now().Format("2 January 2006 15:04"),
		runtime.NumCPU(), model, float64(info.Totalram)*float64(info.Unit)/(1<<30), unix.ByteSliceToString(u.Release[:]),
		fileSystem(dir), loadNow, runtime.Version())
}

func fileSystem(dir string) string {
	out, err := exec.Command("df", "--output=fstype", dir).Output()
	lines := bytes.Fields(out)
	if err != nil || len(lines) == 0 {
		return "unknown file system"
	}
	return string(lines[len(lines)-1])
}

func over(a, b float64) ratio {
	if b == 0 {
		return 0
	}
	return ratio(a / b)
}
