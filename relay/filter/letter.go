package filter

import (
	"io"

	"relayd/relay"
)

// Letter is what the programs are shown.
type Letter struct {
	Env  relay.Envelope
	Ours bool // one of our own people or machines hands it in, or a trusted network does
	// Header is the fields with CRLF line ends, without the empty line behind. Where it was too large
	// to be looked at it is what was seen, Whole is false, and no milter is asked.
	Header []byte
	Whole  bool
	// Body opens what stands behind Header, from the empty line on. Several readers may be open at a
	// time; all are done with when Check returns.
	Body func() io.Reader
	Size int64 // octets of Header and Body
}

// rcpts are the recipients as the client named them, each once.
func (l *Letter) rcpts() []string {
	var all []string
	seen := map[string]bool{}
	for _, r := range l.Env.Rcpts {
		name := r.Orig
		if name == "" {
			name = r.Addr.String()
		}
		if !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	return all
}

// Action is what a program wants done with a letter. A larger one outweighs a smaller one.
type Action int

// The actions.
const (
	Pass       Action = iota
	Junk              // into the folder Junk
	Quarantine        // into the folder Junk, and where it would go elsewhere it is held
	Defer             // 451
	Reject            // 550
)

// Verdict is what one program says of one letter.
type Verdict struct {
	Filter string // the name of the program: "rspamd", "clamd", or that of a milter
	Action Action
	Reply  relay.Reply // for Defer and Reject
	Word   string      // for the log and the queue: "clean", "add-header/7.30", "down"
	Detail string      // for the log alone, where the letter is refused; may be empty
	// Scored says that Score, of rspamd, was measured: a user may have a threshold of his own.
	Scored bool
	Score  float64
	// Aside are recipients, as the client named them, whose copies alone are to be treated as by
	// Quarantine.
	Aside []string
	// Copies are addresses that shall get the letter too, as the milter wrote them.
	Copies []string
	Edits  []Edit
}

// Op is what an Edit does.
type Op int

// The operations. Add writes a new field above the letter; Change gives a field another value, and
// adds it where there is none; Remove takes fields away.
const (
	Add Op = iota
	Change
	Remove
)

// Edit is one change of the header. Its Name is a field name and its Value may stand in a header,
// folded where it has to be: text after the colon, with CRLF inside but not at the end.
type Edit struct {
	Op    Op
	Name  string
	Value string
	Index int // of Change and Remove: which of the fields of this name, from 1; 0: all of them
}
