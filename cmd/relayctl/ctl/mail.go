package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relayd/relay"
)

const mailLong = `mail sends and reads letters as any mail program does, over SMTP and POP3.

Without a verb, on a terminal, it opens a mailbox with a menu. The servers come from the
configuration unless flags name them. undelete, fetches and whatever has --removed are for the
operator instead: they look into the data of relayd and need no password. The password is never on the command line: it is in the
environment variable RELAYD_PASSWORD, on standard input with --password-stdin, or asked for.

Passwords travel under TLS or to this machine only. The certificate of another machine is checked;
--insecure trusts whatever answers.`

// passwordVariable is the environment variable that may hold the password.
const passwordVariable = "RELAYD_PASSWORD"

func (a *app) mail() *cobra.Command {
	var f mailboxFlags
	cmd := a.group("mail", "Send and read letters over SMTP and POP3", mailLong)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !a.interactive() {
			return a.needsVerb(cmd, args)
		}
		return a.mailbox(cmd.Context(), f)
	}
	f.register(cmd.Flags())
	cmd.AddCommand(a.mailSend(), a.mailLs(), a.mailGet(), a.mailRm(), a.mailUndelete(), a.mailFetches())
	return cmd
}

// transport says how to reach a server and how far to trust it.
type transport struct{ tls, insecure bool }

func (t *transport) register(flags *pflag.FlagSet) {
	flags.BoolVar(&t.tls, "tls", false, "speak TLS from the first byte; the ports 465 and 995 mean it anyway")
	flags.BoolVar(&t.insecure, "insecure", false, "do not check the server's certificate")
}

// account is one server and who logs in there.
type account struct {
	transport
	server, user  string
	passwordStdin bool
}

func (f *account) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.server, "server", "", "the server, `HOST:PORT`; otherwise that of the configuration")
	flags.BoolVar(&f.passwordStdin, "password-stdin", false, "read the password from the first line of standard input")
	f.transport.register(flags)
}

// loginPassword gets the password of user.
func (a *app) loginPassword(ctx context.Context, fromStdin bool, user string) (text string, err error) {
	switch {
	case fromStdin:
		text, err = passwordLine(a.Stdin)
	case a.Getenv(passwordVariable) != "":
		text = a.Getenv(passwordVariable)
	case a.interactive():
		text, err = a.prompt(ctx, fmt.Sprintf("password for %s: ", printable(user)))
	default:
		return "", usage("put it into "+passwordVariable+", or use --password-stdin",
			"no password: there is no terminal to ask for it")
	}
	if err == nil && strings.ContainsAny(text, "\r\n\x00") {
		err = errors.New("the password has a character that no password can have")
	}
	return text, err
}

// checkLogin refuses a name that could not be one argument of a POP3 command.
func checkLogin(user string) error {
	if user == "" || strings.ContainsFunc(user, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return usage("such as ann@office.example", "%q is not a user name", user)
	}
	return nil
}

// mailAddress reads an address of a letter, which must have exactly one @, no spaces, and
// something on both sides (S1.6).
func mailAddress(text string) (relay.Address, error) {
	complaint := ""
	switch local, domain, _ := strings.Cut(text, "@"); {
	case text == "":
		complaint = "the address is empty"
	case strings.ContainsAny(text, " \t"):
		complaint = "an address has no spaces"
	case strings.Count(text, "@") != 1:
		complaint = "an address has exactly one @"
	case local == "":
		complaint = "there is nothing before the @"
	case domain == "":
		complaint = "there is nothing behind the @"
	}
	if complaint != "" {
		return relay.Address{}, usage("such as ann@office.example", "%q: %s", text, complaint)
	}
	addr, err := relay.ParseAddress(text, true)
	if err != nil {
		return relay.Address{}, usage("such as ann@office.example", "%q: %v", text, err)
	}
	return addr, nil
}

// mailAddresses reads a list with commas.
func mailAddresses(texts ...string) ([]relay.Address, error) {
	var list []relay.Address
	for _, text := range strings.Split(strings.Join(texts, ","), ",") {
		addr, err := mailAddress(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		list = append(list, addr)
	}
	return list, nil
}
