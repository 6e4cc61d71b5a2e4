package intake

import (
	"context"
	"strings"

	"relayd/relay"
)

// ServiceLocal is the service of letters that programs on this machine hand over without a
// network; Origin.Helo is then the name of the account they run under.
const ServiceLocal = "local"

// BeginLocal opens a transaction for a program on this machine, which may send as anybody to
// anywhere, as sendmail always let it: whoever runs it already is here. It refuses with 452 4.3.1
// while the disk is nearly full.
func (in *Intake) BeginLocal(_ context.Context, account string, from relay.Address, utf8 bool, size int64) (relay.Transaction, error) {
	s := in.settings.Load()
	env := relay.Envelope{From: from, UTF8: utf8, Origin: relay.Origin{Service: ServiceLocal, Helo: account, Trusted: true}}
	if err := in.checkDisk(s, env.Origin, from, size); err != nil {
		return nil, err
	}
	return in.begin(s, env), nil
}

// Knows says whether an address of ours leads anywhere.
func (in *Intake) Knows(a relay.Address) bool {
	dir := in.settings.Load().Directory
	_, err := dir.Classify(relay.Origin{}, a)
	return err == nil && !dir.unsure(relay.Origin{}, a)
}

// account is who runs the program a letter comes from; empty for other letters.
func account(o relay.Origin) string {
	if o.Service != ServiceLocal {
		return ""
	}
	return o.Helo
}

// isAccount says whether a name that stands without a domain is that of the program's own account,
// which need not have a mailbox.
func (y *tidying) isAccount(name string) bool {
	a := account(y.env.Origin)
	return a != "" && strings.EqualFold(name, a)
}
