package ctl

import (
	"context"
	"fmt"
	"os"
	"regexp"

	"github.com/spf13/cobra"
)

const mailSendLong = `send gives a letter to an SMTP server and prints its answer.

The letter is read from FILE or standard input, with LF or CRLF line ends: a header, an empty line
and a body, or with --subject a body alone. From, To, Date and Message-ID are added when missing.
When the server refuses one recipient, nobody gets anything.`

const mailSendExample = `  relayctl mail send --server 127.0.0.1:2525 --from ann@office.test --to bob@office.test letter.eml
  echo 'The lift is out of order.' | relayctl mail send --from ann@office.example --to bob@office.example --subject Lift
  relayctl mail send --server mail.office.example:587 --user ann@office.example --to eve@partner.example letter.eml`

// sendFlags say how a letter travels.
type sendFlags struct {
	account
	from, subject string
	to            []string
}

func (a *app) mailSend() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use: "send --from ADDR --to ADDR[,ADDR...] [FILE|-]", Short: "Send a letter",
		Long: mailSendLong, Example: mailSendExample,
		Args: func(cmd *cobra.Command, args []string) error {
			return wants(false, make([]string, min(1, len(args)))...)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			composed := cmd.Flags().Changed("subject")
			return a.send(cmd.Context(), f, composed, append(args, "-")[0])
		},
	}
	flags := cmd.Flags()
	f.register(flags)
	flags.StringVar(&f.user, "user", "", "log in as `NAME`")
	flags.StringVar(&f.from, "from", "", "the sender's `ADDRESS`; otherwise that of --user")
	flags.StringArrayVar(&f.to, "to", nil, "a recipient's `ADDRESS`, or several with commas")
	flags.StringVar(&f.subject, "subject", "", "the `SUBJECT`; what is read is then the body alone")
	return cmd
}

// send checks everything that can be checked here before it looks for the server.
func (a *app) send(ctx context.Context, f sendFlags, composed bool, file string) error {
	letter, err := a.letter(f, composed, file)
	if err != nil {
		return err
	}
	services := []string{"smtp"}
	if f.user != "" {
		services = []string{"submission", "submissions", "smtp"}
	}
	server, err := a.endpoint(ctx, f.server, f.transport, services...)
	if err != nil {
		return err
	}
	who := login{user: f.user}
	if f.user != "" {
		if who.password, err = a.loginPassword(ctx, f.passwordStdin, f.user); err != nil {
			return err
		}
	}
	reply, err := server.submit(ctx, letter, who)
	if err != nil {
		return err
	}
	return a.sent(reply)
}

func (a *app) letter(f sendFlags, composed bool, file string) (letter outgoing, err error) {
	if f.from == "" {
		f.from = f.user
	}
	switch {
	case f.from == "":
		return letter, usage("--from ADDRESS", "who sends the letter?")
	case len(f.to) == 0:
		return letter, usage("--to ADDRESS[,ADDRESS...]", "who gets the letter?")
	case f.passwordStdin && file == "-":
		return letter, usage("name the letter's FILE", "standard input cannot be both the password and the letter")
	}
	if f.user != "" {
		if err := checkLogin(f.user); err != nil {
			return letter, err
		}
	}
	if letter.from, err = mailAddress(f.from); err != nil {
		return letter, err
	}
	if letter.rcpts, err = mailAddresses(f.to...); err != nil {
		return letter, err
	}
	if letter.text, err = a.readLetter(file); err != nil {
		return letter, err
	}
	if composed {
		if letter.text, err = compose(f.subject, letter.text); err != nil {
			return letter, err
		}
	}
	letter.text, err = complete(letter.text, letter.from, letter.rcpts, a.Now())
	return letter, err
}

func (a *app) readLetter(file string) ([]byte, error) {
	in := a.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	} else if a.TerminalIn && a.TerminalErr {
		fmt.Fprintln(a.Stderr, "type the letter, and Ctrl-D at the start of a line to send it")
	}
	return readLetter(in)
}

// queuedAs finds relayd's ID in its answer.
var queuedAs = regexp.MustCompile(`queued as ([0-9A-Za-z._-]+)`)

// sent prints the server's answer.
func (a *app) sent(reply string) error {
	if !a.json {
		_, err := fmt.Fprintln(a.Stdout, printableLines(reply))
		return err
	}
	id := ""
	if m := queuedAs.FindStringSubmatch(reply); m != nil {
		id = m[1]
	}
	return a.printJSON(struct {
		Verb  string `json:"verb"`
		ID    string `json:"id,omitempty"`
		Reply string `json:"reply"`
	}{"send", id, reply})
}
