package ctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
)

// maxHeader is how much of a letter's header is shown.
const maxHeader = 256 << 10

func (a *app) queueShow() *cobra.Command {
	var body, raw, transcript bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one message: envelope, state of every recipient, header",
		Long: "show tells all there is about one message. The ID may be followed by /DOMAIN, and be shortened.",
		Args: wants(false, "an ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if body && raw {
				return usage("--raw is the header and the body already", "--body and --raw contradict each other")
			}
			s, err := a.open()
			if err != nil {
				return err
			}
			defer s.close()
			if raw {
				return a.showRaw(cmd.Context(), s, args[0])
			}
			if transcript {
				return a.showTranscript(cmd.Context(), s, args[0])
			}
			return a.show(cmd.Context(), s, args[0], body)
		},
	}
	cmd.Flags().BoolVar(&body, "body", false, "show what follows the header too")
	cmd.Flags().BoolVar(&raw, "raw", false, "write the message alone, octet for octet as it will be sent")
	cmd.Flags().BoolVar(&transcript, "transcript", false, "show what was said at each attempt that failed, and when, instead")
	return cmd
}

// showTranscript prints the dialogues of the failed attempts, for each domain of the letter.
func (a *app) showTranscript(ctx context.Context, s source, name string) error {
	items, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	if a.json {
		return a.showJSON(items)
	}
	var b strings.Builder
	for _, it := range items {
		if len(it.Transcripts) == 0 {
			a.note("%s: no attempt has failed yet", it.Key())
			continue
		}
		fmt.Fprintf(&b, "%s, %s, each line with the seconds since its attempt began\n", it.Key(), count(it.Attempts, "attempt"))
		last := 0
		for _, t := range it.Transcripts {
			if left := t.Attempt - last - 1; last > 0 && left > 0 {
				fmt.Fprintf(&b, "(%s between are not kept)\n", count(left, "attempt"))
			}
			last = t.Attempt
			fmt.Fprintf(&b, "attempt %d, over %s\n", t.Attempt, a.when(t.At))
			for text := range strings.Lines(t.Text) {
				b.WriteString(printable(strings.TrimSuffix(text, "\n")) + "\n")
			}
		}
	}
	_, err = io.WriteString(a.Stdout, b.String())
	return err
}

// showRaw gives the letter away as it is. A terminal is the one place it does not go unchanged.
func (a *app) showRaw(ctx context.Context, s source, name string) error {
	r, err := s.Body(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	if s.files {
		s.close() // the letter is a file of its own and stays open
	}
	return a.copyText(r)
}

func (a *app) show(ctx context.Context, s source, name string, withBody bool) error {
	items, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	if a.json {
		return a.showJSON(items)
	}
	letter, err := s.Body(ctx, string(items[0].ID))
	if err != nil {
		// What is known is shown even so.
		a.note("%v", err)
		letter = io.NopCloser(strings.NewReader(""))
	}
	defer letter.Close()
	if s.files {
		s.close()
	}
	var b strings.Builder
	a.describe(&b, items)
	if _, err := io.WriteString(a.Stdout, b.String()); err != nil {
		return err
	}
	return errors.Join(a.showLetter(letter, withBody), silently(err))
}

// silently fails where the reason has been said already.
func silently(err error) error {
	if err != nil {
		return errSilent
	}
	return nil
}

func (a *app) showJSON(items []admin.Item) error {
	for _, it := range items {
		if err := a.printJSON(it); err != nil {
			return err
		}
	}
	return nil
}

// describe writes the envelope and how things stand.
func (a *app) describe(b *strings.Builder, items []admin.Item) {
	it := items[0]
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "%-10s%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("id", "%s", it.ID)
	line("accepted", "%s", a.when(it.Accepted))
	line("from", "%s", sender(it.From))
	line("size", "%s", size(it.Size))
	line("origin", "%s", origin(it.Origin))
	if it.Auth != "" {
		line("checked", "%s", it.Auth)
	}
	if wishes := strings.TrimSpace(envelopeWishes(it)); wishes != "" {
		line("asked for", "%s", wishes)
	}
	if it.Filter != "" {
		line("filters", "%s", it.Filter)
	}
	for _, it := range items {
		b.WriteByte('\n')
		state := next(it.Next, a.Now(), it.Held)
		switch {
		case it.Held:
		case it.Paused:
			state = "paused"
		default:
			state = "next " + state
		}
		line("to", "%s: %s, %s%s", it.Domain, count(it.Attempts, "attempt"), state,
			map[bool]string{true: ", sender warned of the delay"}[it.Warned])
		if it.Hold != "" {
			line("held", "%s", it.Hold)
		}
		if it.Via != "" {
			line("route", "%s, by order of the operator", viaText(it.Via))
		}
		for _, r := range it.Recipients {
			a.describeRecipient(b, r)
		}
	}
}

// envelopeWishes is what the sender asked for, in the words of MAIL (RFC 2852, 3461, 4865); BY with its time.
func envelopeWishes(it admin.Item) (s string) {
	if it.Ret != "" {
		s += " RET=" + string(it.Ret)
	}
	if it.EnvID != "" {
		s += " ENVID=" + it.EnvID
	}
	if it.RequireTLS {
		s += " REQUIRETLS"
	}
	if !it.Release.IsZero() {
		s += " HOLDUNTIL=" + it.Release.UTC().Format(time.RFC3339)
	}
	if !it.DeliverBy.IsZero() {
		s += " BY=" + it.DeliverBy.String()
	}
	return s
}

func viaText(via string) string {
	if via == relay.ViaMX {
		return "the mail hosts of the domain, past every [[route]]"
	}
	return "by " + via
}

func (a *app) describeRecipient(b *strings.Builder, r admin.Recipient) {
	fmt.Fprintf(b, "  %s  %s", printable(r.Address), r.State)
	if r.Orig != "" && r.Orig != r.Address {
		fmt.Fprintf(b, " (addressed as %s)", printable(r.Orig))
	}
	b.WriteByte('\n')
	var wishes []string
	if r.Notify != 0 {
		wishes = append(wishes, "NOTIFY="+r.Notify.String())
	}
	if r.ORcpt != "" {
		wishes = append(wishes, "ORCPT="+printable(r.ORcpt))
	}
	if len(wishes) > 0 {
		fmt.Fprintf(b, "    asked for %s\n", strings.Join(wishes, " "))
	}
	reply := relay.Reply{Code: r.Code, Status: r.Status, Text: r.Text}.String()
	if reply != "" {
		fmt.Fprintf(b, "    %s\n", printable(reply))
	}
	if !r.At.IsZero() {
		who := "relayd itself"
		if r.Host != "" {
			who = r.Host
		}
		if r.TLS != "" {
			who += ", " + r.TLS
		}
		fmt.Fprintf(b, "    said by %s, %s\n", printable(who), a.when(r.At))
	}
	if r.Way != "" {
		fmt.Fprintf(b, "    over %s\n", printable(r.Way))
	}
}

// when is a time and how long ago that is.
func (a *app) when(t time.Time) string {
	return t.Local().Format("2006-01-02 15:04:05 -0700") + " (" + span(a.Now().Sub(t)) + " ago)"
}

// origin says where a letter came from.
func origin(o relay.Origin) string {
	if !o.Client.IsValid() {
		return "relayd itself"
	}
	parts := []string{o.Client.Addr().Unmap().String()}
	for _, p := range []struct{ label, value string }{
		{"", o.Name}, {"helo ", o.Helo}, {"", o.Proto}, {"", o.TLS}, {"user ", o.User}, {"service ", o.Service},
	} {
		if p.value != "" {
			parts = append(parts, p.label+p.value)
		}
	}
	if o.Trusted {
		parts = append(parts, "trusted network")
	}
	return strings.Join(parts, ", ")
}

// showLetter prints the header, and the rest if it is wanted.
func (a *app) showLetter(letter io.Reader, withBody bool) error {
	in := bufio.NewReaderSize(letter, 64<<10)
	header, err := readHeader(in)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Stdout)
	if err := a.copyText(bytes.NewReader(header)); err != nil || !withBody {
		return err
	}
	fmt.Fprintln(a.Stdout)
	return a.copyText(in)
}

// copyText is for letters: as they are into files and pipes, made printable for terminals.
func (a *app) copyText(r io.Reader) error {
	if a.TerminalOut {
		return copyPrintable(a.Stdout, r)
	}
	_, err := io.Copy(a.Stdout, r)
	return err
}

// readHeader reads up to the empty line, which it swallows, or maxHeader octets.
func readHeader(r *bufio.Reader) ([]byte, error) {
	var header []byte
	start := true // at the beginning of a line
	for {
		piece, err := r.ReadSlice('\n')
		if start && err == nil && len(bytes.TrimRight(piece, "\r\n")) == 0 {
			return header, nil
		}
		header = append(header, piece...)
		switch {
		case err == io.EOF:
			return header, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return header, err
		case len(header) > maxHeader:
			return header, nil
		}
		start = err == nil
	}
}
