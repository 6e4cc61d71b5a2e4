package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"relayd/relay/relaytest"
)

// crashRcpts gives the letters of a crash test their recipients, by number.
func crashRcpts(n int) []string {
	return [][]string{
		{"ann@office.test"},
		{"bob@sink.test"},
		{"ann@office.test", "bob@sink.test"},
		{"ann@office.test", "carol@office.test"},
		{"nobody@sink.test"},
		{"bob@sink.test", "nobody@sink.test", "dora@other.test"},
	}[n%6]
}

// fate is one letter to one recipient.
type fate struct {
	letter int
	rcpt   string
}

// ledger holds what was promised against what came of it.
type ledger struct {
	t    *testing.T
	mail string // the folder of the domain's mailboxes

	mu       sync.Mutex
	promised map[int]bool
	came     map[fate]int // into a maildir or to the sink
	reported map[fate]int
	read     map[string]bool // files in new/ that have been looked at
}

func newLedger(t *testing.T, mail string) *ledger {
	return &ledger{t: t, mail: mail, promised: map[int]bool{}, came: map[fate]int{}, reported: map[fate]int{}, read: map[string]bool{}}
}

// accept is called with the number of each letter that was answered 250.
func (l *ledger) accept(n int, _ string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promised[n] = true
}

// readMailboxes looks at what a reader sees for the first time.
func (l *ledger) readMailboxes() {
	l.t.Helper()
	names, err := filepath.Glob(filepath.Join(l.mail, "*/new/*"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, name := range names {
		if l.read[name] {
			continue
		}
		l.read[name] = true
		data, err := os.ReadFile(name)
		if err != nil {
			l.t.Fatal(err)
		}
		mailbox := filepath.Base(filepath.Dir(filepath.Dir(name)))
		switch {
		case bytes.HasSuffix(data, []byte("\nThe end.\n")):
			l.came[fate{number(data), mailbox + "@office.test"}]++
		case bytes.Contains(data, []byte("multipart/report")) && bytes.HasSuffix(data, []byte("--\n")):
			l.readReport(data)
		default:
			l.t.Errorf("%s is visible and not whole:\n%s", name, data)
		}
	}
}

var finalRecipient = regexp.MustCompile(`(?m)^Final-Recipient: rfc822; ?(\S+)$`)

func (l *ledger) readReport(data []byte) {
	for _, m := range finalRecipient.FindAllSubmatch(data, -1) {
		l.reported[fate{number(data), string(m[1])}]++
	}
}

func (l *ledger) readSink(letters []relaytest.MXLetter) {
	for _, letter := range letters {
		if !bytes.HasSuffix(letter.Body, []byte("\r\nThe end.\r\n")) {
			l.t.Errorf("the sink got a letter that is not whole")
		}
		for _, r := range letter.Rcpts {
			path, _, _ := strings.Cut(strings.TrimPrefix(r, "<"), ">")
			l.came[fate{number(letter.Body), path}]++
		}
	}
}

// checkLocal wants every promised local letter visible now, with no daemon running.
func (l *ledger) checkLocal(at string) {
	l.t.Helper()
	for n := range l.promised {
		for _, rcpt := range crashRcpts(n) {
			if strings.HasSuffix(rcpt, "@office.test") && l.came[fate{n, rcpt}] == 0 {
				l.t.Errorf("killed at %q: letter %d was promised and %s cannot see it", at, n, rcpt)
			}
		}
	}
}

// check wants every promised letter with each of its recipients, or reported to its sender. A
// duplicate is explained by an attempt or a report that was under way at a kill.
func (l *ledger) check(kills int) {
	l.t.Helper()
	lost, wrong := 0, 0
	for n := range l.promised {
		for _, rcpt := range crashRcpts(n) {
			f := fate{n, rcpt}
			refused := strings.HasPrefix(rcpt, "nobody@")
			if refused && l.reported[f] == 0 || !refused && l.came[f] == 0 {
				lost++
				l.t.Errorf("letter %d to %s was promised and lost", n, rcpt)
			}
		}
	}
	unanswered := map[int]bool{}
	local, sent, reports := 0, 0, 0
	for f, times := range l.came {
		switch {
		case strings.HasSuffix(f.rcpt, "@office.test"):
			local += times - 1
		default:
			sent += times - 1
		}
		if !l.promised[f.letter] {
			unanswered[f.letter] = true
		}
	}
	for f, times := range l.reported {
		reports += times - 1
		if !strings.HasPrefix(f.rcpt, "nobody@") {
			wrong++
		}
		if !l.promised[f.letter] {
			unanswered[f.letter] = true
		}
	}
	l.t.Logf("%d kills: %d letters promised, %d lost; %d were kept though their 250 was not heard; %d sent twice, %d reported twice",
		kills, len(l.promised), lost, len(unanswered), sent, reports)
	// Nobody sends a letter again here, so a mailbox has each once. Two domains, ten attempts each.
	if local > 0 || wrong > 0 || len(unanswered) > kills*crashSessions || sent+reports > kills*2*10*3 {
		l.t.Errorf("more duplicates than kills explain: %d in mailboxes, %d wrong reports", local, wrong)
	}
}

// number is that of a letter, or of the one a report is about.
func number(letter []byte) int {
	_, rest, _ := bytes.Cut(letter, []byte("X-Number: "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.Atoi(strings.TrimSpace(string(line)))
	if err != nil {
		return -1
	}
	return n
}
