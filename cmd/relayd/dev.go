package main

import (
	"context"
	"fmt"
	"io"

	"relayd/relay"
	"relayd/relay/users"
)

// devUser is the one user of the development office.
var devUser = relay.Address{Local: "ann", Domain: "office.test"}

// welcome gives the development office its user at the first start and tells a newcomer, in plain
// words, where everything is and what to type next.
func (h *house) welcome(ctx context.Context, w io.Writer) error {
	password := "the password printed at the first start"
	if !h.users.Exists(devUser) {
		password = users.GeneratePassword()
		if err := h.users.Add(ctx, devUser, password); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, welcomeText, h.config().DataDir, devUser, password)
	return err
}

const welcomeText = `relayd --dev: the development office office.test is open, on this machine only.

  SMTP 127.0.0.1:2525   submission 127.0.0.1:2587   POP3 127.0.0.1:1100
  mail and queue are kept in %[1]s
  user %[2]s, password %[3]s

Send a letter (in another terminal, in this folder):

  printf 'Subject: hello\n\nmy first letter\n' | bin/relayctl mail send --server 127.0.0.1:2525 --from %[2]s --to %[2]s

Collect it:

  bin/relayctl mail ls  --server 127.0.0.1:1100 %[2]s
  bin/relayctl mail get --server 127.0.0.1:1100 %[2]s 1

Look around:

  bin/relayctl --config dev queue ls
  bin/relayctl --config dev status

Stop it with Ctrl-C.

`
