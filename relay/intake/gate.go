package intake

import (
	"context"
	"strings"
)

// knock presents a stranger's letter to the gate. The others have no gate before them: our own people
// and networks, machines at device listeners, and this machine.
func (t *transaction) knock() (err error) {
	if t.in.gate != nil && t.env.Origin.Service == publicService && t.isStranger() {
		t.stranger, err = t.in.gate.Begin(t.env.Origin)
	}
	return err
}

// publicService is the service that the world's mail comes in by.
const publicService = "smtp"

// gateField is the name, as fieldName has it, of the field that says what the gate found. It begins
// with our own name, as Authentication-Results does.
const gateField = "x-relayd-gate"

// passGate asks the gate about a letter that is whole, and writes into it what was found. It ends e
// where the letter ends here.
func (t *transaction) passGate(ctx context.Context, e *examined) error {
	v, err := t.stranger.Receive(ctx, t.env, t.proven)
	if err != nil {
		e.end()
		return err
	}
	t.env.Junk = t.env.Junk || v.Junk
	if t.weight = v.Note; v.Note != "" {
		t.results += "X-Relayd-Gate: " + string(t.settings.Directory.Hostname) + ";\r\n\t" + strings.ReplaceAll(v.Note, ", ", ",\r\n\t") + "\r\n"
	}
	return nil
}
