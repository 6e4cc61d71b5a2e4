package relay

import "fmt"

// Scope says what a Failure condemns: one recipient, the whole message, or only the host we
// were talking to, in which case another host or a later attempt may do better.
type Scope int

// The scopes, the mildest first. The zero value is host, because unknown means temporary.
const (
	ScopeHost Scope = iota
	ScopeRecipient
	ScopeMessage
)

func (s Scope) String() string {
	return [...]string{"host", "recipient", "message"}[s]
}

// Failure is an error that carries the reply to give or the reply received. relay/smtpd speaks
// its Reply to the client and logs its Err; everything that is not a Failure is answered 451.
// Look inside with errors.AsType[*relay.Failure](err).
type Failure struct {
	Op    string // what was being done: "queue: stage", "mx: RCPT TO"
	Scope Scope
	Reply Reply // what a stranger may be told, or was told by the remote
	Err   error // the detail, for the log alone; may be nil
}

// Fail makes a Failure of a reply.
func Fail(op string, scope Scope, reply Reply, err error) *Failure {
	return &Failure{Op: op, Scope: scope, Reply: reply, Err: err}
}

// Refuse makes the Failure that refuses a stranger: an SMTP code, its enhanced status in the
// form "5.1.1", and one sentence.
func Refuse(op string, code int, status, text string) *Failure {
	s, ok := ParseStatus(status)
	if !ok {
		panic("relay: Refuse with the malformed status " + status)
	}
	return &Failure{Op: op, Scope: ScopeRecipient, Reply: Reply{Code: code, Status: s, Text: text}}
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return fmt.Sprintf("%s: %s", f.Op, f.Reply)
	}
	return fmt.Sprintf("%s: %s: %v", f.Op, f.Reply, f.Err)
}

func (f *Failure) Unwrap() error { return f.Err }
