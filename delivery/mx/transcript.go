package mx

import (
	"context"
	"fmt"
	"strings"
	"time"

	"relayd/relay"
)

// Bounds of a transcript, in octets: its beginning tells who answered, its end why it failed.
const (
	maxTranscript     = 8 << 10
	maxTranscriptHead = 2 << 10
	maxTranscriptLine = 300
)

// transcript keeps the dialogues of one attempt: whom we called, every line of both sides and when,
// but nothing of the letter and no password. Taking a line down costs next to nothing; it becomes
// text only when the attempt has failed. A nil transcript keeps nothing.
type transcript struct {
	begun      time.Time
	head, tail []line
	headSize   int
	tailSize   int
	dropped    int
}

// line is one command or reply, or a note of ours.
type line struct {
	at   time.Time
	mark byte   // '>' we said, '<' they said, '*' a note
	text string // of a command or a note
	a    answer // of a reply
}

type transcriptKey struct{}

// taking makes the sessions of an attempt take their dialogue down, in the way of net/http/httptrace.
func (tr *transcript) taking(ctx context.Context) context.Context {
	return context.WithValue(ctx, transcriptKey{}, tr)
}

func transcriptOf(ctx context.Context) *transcript {
	tr, _ := ctx.Value(transcriptKey{}).(*transcript)
	return tr
}

func (tr *transcript) add(l line) {
	if tr == nil {
		return
	}
	l.at = time.Now()
	size := l.size()
	if tr.headSize+size <= maxTranscriptHead && len(tr.tail) == 0 {
		tr.head, tr.headSize = append(tr.head, l), tr.headSize+size
		return
	}
	tr.tail, tr.tailSize = append(tr.tail, l), tr.tailSize+size
	for len(tr.tail) > 1 && tr.tailSize > maxTranscript-maxTranscriptHead-100 {
		tr.tailSize -= tr.tail[0].size()
		tr.tail = tr.tail[1:]
		tr.dropped++
	}
}

// prefixSize is what stands before the text of a line.
const prefixSize = len("+0000.000 > ") + len("\n")

func (l line) size() int {
	if l.mark != '<' {
		return prefixSize + min(len(l.text), maxTranscriptLine)
	}
	n := 0
	for _, text := range l.a.lines {
		n += prefixSize + len("250 ") + min(len(text), maxTranscriptLine)
	}
	return n
}

// said takes a command of ours down. What a login says is nobody's business.
func (tr *transcript) said(cmd command) {
	if tr == nil {
		return
	}
	if cmd.phase == phaseAUTH {
		word, _, _ := strings.Cut(cmd.line, " ")
		if cmd.line = "***"; word == "AUTH" {
			cmd.line = "AUTH ***"
		}
	}
	tr.add(line{mark: '>', text: cmd.line})
}

func (tr *transcript) heard(a answer) { tr.add(line{mark: '<', a: a}) }

func (tr *transcript) note(format string, args ...any) {
	if tr != nil {
		tr.add(line{mark: '*', text: fmt.Sprintf(format, args...)})
	}
}

// String is the text: a line each, with the seconds since the attempt began.
func (tr *transcript) String() string {
	var b strings.Builder
	for _, l := range tr.head {
		tr.write(&b, l)
	}
	if tr.dropped > 0 {
		fmt.Fprintf(&b, "          * %d more\n", tr.dropped)
	}
	for _, l := range tr.tail {
		tr.write(&b, l)
	}
	return clip(b.String(), maxTranscript)
}

func (tr *transcript) write(b *strings.Builder, l line) {
	texts := []string{l.text}
	if l.mark == '<' {
		texts = l.a.lines
	}
	for i, text := range texts {
		fmt.Fprintf(b, "%+9.3f %c ", l.at.Sub(tr.begun).Seconds(), l.mark)
		if l.mark == '<' {
			dash := byte('-')
			if i == len(texts)-1 {
				dash = ' '
			}
			fmt.Fprintf(b, "%03d%c", l.a.code, dash)
		}
		b.WriteString(clip(printable(text), maxTranscriptLine) + "\n")
	}
}

// attachTo puts the text on the first recipient who has not got the letter; one copy is enough.
func (tr *transcript) attachTo(results []relay.Result) []relay.Result {
	for i := range results {
		if results[i].Outcome != relay.Delivered {
			results[i].Transcript = tr.String()
			break
		}
	}
	return results
}
