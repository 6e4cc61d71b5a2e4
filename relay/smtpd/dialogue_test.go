package smtpd_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"relayd/relay/smtpd"
)

// TestDialogue plays testdata/*.txtar. The text before the first file is the dialogue:
//
//	C: a line, sent with CR LF
//	C! a Go string without its quotes, sent as it is
//	S: one whole reply, lines divided by \n; * stands for anything; EOF for the end
//	TLS
//
// The file "config" holds switches, the file "letters" what must have been accepted, the file
// "troubles" what is remembered of devices.
func TestDialogue(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range ar.Files {
				files[f.Name] = string(f.Data)
			}
			o := &office{}
			c := config(o)
			configure(t, &c, files["config"])
			_, addr := listen(t, c)
			play(t, addr, string(ar.Comment))
			if got := o.describe(); got != files["letters"] {
				t.Errorf("letters: got\n%s\nwant\n%s", got, files["letters"])
			}
			if got := troubles(c.Profile.Devices); got != files["troubles"] {
				t.Errorf("troubles: got\n%s\nwant\n%s", got, files["troubles"])
			}
		})
	}
}

func configure(t *testing.T, c *smtpd.Config, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.Atoi(value)
		switch key {
		case "message_size":
			c.Limits.MessageSize = int64(n)
		case "recipients":
			c.Limits.Recipients = n
		case "errors":
			c.Limits.Errors = n
		case "bad_recipients":
			c.Limits.BadRecipients = n
		case "command_line":
			c.Limits.CommandLine = n
		case "bare_newline":
			c.BareNewline = value
		case "trusted":
			c.Trusted = func(netip.Addr) bool { return true }
		case "no_auth":
			c.Auth = nil
		case "lenient":
			c.Profile.Lenient, c.Profile.Devices = true, smtpd.NewDevices()
		case "plaintext_auth":
			c.Profile.PlaintextAuth = true
		case "no_login":
			c.Profile.NoLogin = true
		case "letters_per_hour":
			c.Profile.LettersPerHour = n
		case "stranger":
			c.Profile.Admit = func(netip.Addr) bool { return false }
		case "no_tls":
			c.TLS = nil
		default:
			t.Fatalf("config: %q", line)
		}
	}
}

func play(t *testing.T, addr, dialogue string) {
	t.Helper()
	c := dial(t, addr)
	n := 0
	for line := range strings.Lines(dialogue) {
		n++
		line = strings.TrimSuffix(line, "\n")
		tag, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || tag == "#":
		case tag == "C:":
			c.send(rest + "\r\n")
		case tag == "C!":
			s, err := strconv.Unquote(`"` + strings.ReplaceAll(rest, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("line %d: %v", n, err)
			}
			c.send(s)
		case tag == "S:":
			want := strings.ReplaceAll(rest, `\n`, "\n")
			if got := c.reply(); !match(want, got) {
				t.Fatalf("line %d: got %q, want %q", n, got, want)
			}
		case tag == "TLS":
			c.useTLS()
		default:
			t.Fatalf("line %d: %q", n, line)
		}
	}
}

func (o *office) describe() string {
	var b strings.Builder
	for _, l := range o.all() {
		var rcpts []string
		for _, r := range l.rcpts {
			rcpts = append(rcpts, r.Path())
		}
		fmt.Fprintf(&b, "%s -> %s %s %q\n", l.from.Path(), strings.Join(rcpts, " "), l.origin.Proto, l.body)
	}
	return b.String()
}

// troubles is what went wrong last for each device.
func troubles(d *smtpd.Devices) string {
	if d == nil {
		return ""
	}
	var b strings.Builder
	for _, dev := range d.List() {
		if dev.Trouble != "" {
			fmt.Fprintln(&b, dev.Trouble)
		}
	}
	return b.String()
}
