package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/cmd/relayctl/ctl"
	"relayd/config"
	"relayd/relay/relaytest"
)

const readmeFile = "../../README.md"

// readmeBlock is a fenced block of the README. A comment before it says how it is tested.
type readmeBlock struct {
	test string // of <!-- test: ... -->
	text string
	line int
}

func readmeText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(readmeFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var testComment = regexp.MustCompile(`^<!-- test: (.*) -->$`)

// readmeBlocks cuts the fenced blocks out.
func readmeBlocks(t *testing.T) (blocks []readmeBlock) {
	t.Helper()
	fenced, test, n := false, "", 0
	for line := range strings.Lines(readmeText(t)) {
		n++
		text := strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(text, "```"):
			if fenced = !fenced; fenced {
				blocks = append(blocks, readmeBlock{test: test, line: n})
				test = ""
			}
		case fenced:
			blocks[len(blocks)-1].text += line
		case testComment.MatchString(text):
			test = testComment.FindStringSubmatch(text)[1]
		}
	}
	return blocks
}

// blockTests says how the blocks are tested; those of interopBlocks need programs that only
// `make interop` may ask for.
var blockTests = map[string]func(t *testing.T, b readmeBlock){
	"make":         testCommandList,
	"install":      testCommandList,
	"first letter": testFirstLetter,
	"config":       testConfigBlock,
	"toml":         testTOMLBlock,
	"toml acme":    testACMEBlock,
	"zone":         testZoneBlock,
	"socket unit":  testUnitBlock,
	"service unit": testUnitBlock,
	"backup":       testBackup,
	"picture":      testPicture,
}

var interopBlocks = []string{"curl"}

// TestREADME does what the README says: a block that nothing tests is an error.
func TestREADME(t *testing.T) {
	t.Parallel()
	for _, b := range readmeBlocks(t) {
		t.Run(fmt.Sprintf("line_%d_%s", b.line, b.test), func(t *testing.T) {
			t.Parallel()
			test := blockTests[b.test]
			if test == nil && !slices.Contains(interopBlocks, b.test) {
				t.Fatalf("README.md:%d: nothing tests this block; put <!-- test: NAME --> before it, NAME being one of readme_test.go", b.line)
			}
			if test != nil {
				test(t, b)
			}
		})
	}
}

// devOffice is a relayd --dev in a folder of its own, as a newcomer has it after make run.
type devOffice struct {
	*server
	t        *testing.T
	dir      string
	welcome  string
	password string
}

var exportedPassword = regexp.MustCompile(`(?m)^  export RELAYD_PASSWORD=(.*)$`)

func openDevOffice(t *testing.T, more ...string) *devOffice {
	t.Helper()
	o := &devOffice{t: t, dir: t.TempDir()}
	for _, name := range []string{"relayd", "relayctl"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		os.Mkdir(filepath.Join(o.dir, "bin"), 0o700)
		if err := os.Symlink(path, filepath.Join(o.dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	o.start(more...)
	return o
}

func (o *devOffice) start(more ...string) {
	o.t.Helper()
	// The shell puts what is said to the newcomer into a file, which is whole once relayd is ready.
	args := append([]string{"-c", `exec bin/relayd "$@" >welcome`, "sh", "--dev",
		"--listen", "smtp=127.0.0.1:0", "--listen", "submission=127.0.0.1:0", "--listen", "pop3=127.0.0.1:0"}, more...)
	d, err := launch("/bin/sh", o.dir, args...)
	if err != nil {
		o.t.Fatal(err)
	}
	o.server = d
	o.t.Cleanup(func() {
		if o.server == d {
			o.shut()
		}
	})
	said, err := os.ReadFile(filepath.Join(o.dir, "welcome"))
	if err != nil {
		o.t.Fatal(err)
	}
	o.welcome = string(said)
	if m := exportedPassword.FindStringSubmatch(o.welcome); m != nil {
		o.password = m[1]
	}
}

func (o *devOffice) shut() {
	d := o.server
	o.server = nil
	if err := d.stop(); err != nil {
		o.t.Errorf("stopping relayd: %v\n%s", err, d.log.String())
	}
}

// shell runs a script in the office's folder; every command of it must succeed.
func (o *devOffice) shell(script string) string {
	o.t.Helper()
	cmd := exec.Command("/bin/sh", "-e", "-u", "-c", script)
	cmd.Dir = o.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// wantAll complains about every pattern that is missing in text.
func wantAll(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(text) {
			t.Errorf("no %q in\n%s", p, text)
		}
	}
}

func testFirstLetter(t *testing.T, b readmeBlock) {
	o := openDevOffice(t)
	script := strings.Replace(b.text, "the password it printed", o.password, 1)
	if script == b.text {
		t.Errorf("README.md:%d: the block has no place for the password", b.line)
	}
	if lines := strings.Count(b.text, "\n"); lines > 10 {
		t.Errorf("README.md:%d: the first letter takes %d lines", b.line, lines)
	}
	wantAll(t, o.shell(script), `^250 2\.0\.0 queued as [0-9a-z]+$`, `ann@office\.test .* hello$`, `^my first letter$`,
		`^the queue is empty$`, `^listens +smtp on 127\.0\.0\.1:`, `^data/mail/office.test/ann/new:$`)
}

// TestWelcome types what relayd --dev prints at its first start, and looks at the second.
func TestWelcome(t *testing.T) {
	t.Parallel()
	for _, more := range [][]string{nil, {"--data", "it's a folder"}} {
		t.Run(strings.Join(more, "_"), func(t *testing.T) {
			t.Parallel()
			o := openDevOffice(t, more...)
			wantAll(t, o.welcome, `^  smtp +`+o.addrs["smtp"]+`$`, `^  pop3 +`+o.addrs["pop3"]+`$`)
			wantAll(t, o.shell(typed(o.welcome)), `^250 2\.0\.0 queued as `, `^my first letter$`, `^the queue is empty$`, `^listens +pop3 on `)
			o.shut()
			o.start(more...)
			if exportedPassword.MatchString(o.welcome) {
				t.Error("the second start prints a password: only its hash should be left")
			}
			wantAll(t, o.shell("export RELAYD_PASSWORD="+o.password+"\n"+typed(o.welcome)), `^2 letters,`)
		})
	}
}

// typed are the indented lines of the welcome that are commands.
func typed(welcome string) string {
	var b strings.Builder
	for line := range strings.Lines(welcome) {
		for _, first := range []string{"  export ", "  printf ", "  bin/"} {
			if strings.HasPrefix(line, first) {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

func TestDevListen(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"smtp=0.0.0.0:2525":      "127.0.0.1:PORT or [::1]:PORT only",
		"smtp=192.0.2.1:25":      "127.0.0.1:PORT or [::1]:PORT only",
		"smtp=localhost:25":      "127.0.0.1:PORT or [::1]:PORT only",
		"smtp":                   "127.0.0.1:PORT or [::1]:PORT only",
		"imap=127.0.0.1:143":     "SERVICE one of smtp,",
		"smtp=127.0.0.1:2525":    "",
		"metrics=[::1]:9025":     "",
		"submissions=[::1]:2465": "",
	} {
		cfg, err := devConfig("data", []string{word})
		if want == "" && (err != nil || len(cfg.Listen.POP3) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("--listen %s: %v, want %q", word, err, want)
		}
	}
}

func testConfigBlock(t *testing.T, b readmeBlock) {
	if b.text != config.Example {
		t.Errorf("README.md:%d: differs from config/relayd.example.toml", b.line)
	}
	if _, err := config.Parse("relayd.toml", []byte(b.text)); err != nil {
		t.Error(err)
	}
}

func testTOMLBlock(t *testing.T, b readmeBlock) {
	office := "hostname = \"mail.office.example\"\n[listen]\nsmtp = \":25\"\n[domains.\"office.example\"]\npostmaster = \"ann\"\n"
	if _, err := config.Parse("README.md", []byte(office+b.text)); err != nil {
		t.Errorf("README.md:%d: %v", b.line, err)
	}
}

// testACMEBlock: the lines that get a certificate from an authority.
func testACMEBlock(t *testing.T, b readmeBlock) {
	office := "hostname = \"mail.office.example\"\n" + b.text + "[domains.\"office.example\"]\npostmaster = \"ann\"\n"
	cfg, err := config.Parse("README.md", []byte(office))
	if err != nil || !cfg.ACME.On || len(cfg.Warnings) > 0 {
		t.Errorf("README.md:%d: %v, %+v", b.line, err, cfg)
	}
}

func testZoneBlock(t *testing.T, b readmeBlock) {
	dns, err := relaytest.NewDNS("127.0.0.1:0", b.text)
	if err != nil {
		t.Fatalf("README.md:%d: %v", b.line, err)
	}
	dns.Close()
}

// testBackup copies the data of a running office away and back.
func testBackup(t *testing.T, b readmeBlock) {
	o := openDevOffice(t)
	send := "printf 'Subject: precious\n\nx\n' | bin/relayctl --config dev mail send --from ann@office.test --to ann@office.test"
	o.shell(send)
	data := filepath.Join(o.dir, "data")
	lines := strings.SplitAfter(strings.ReplaceAll(b.text, "/var/lib/relayd", data), "\n")
	o.shell(lines[0])
	o.shut()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	o.shell("mkdir -m 700 data\n" + lines[1])
	o.start()
	wantAll(t, o.shell("export RELAYD_PASSWORD="+o.password+"\nbin/relayctl --config dev mail ls ann@office.test"), `precious$`)
	o.shell(send)
}

// testUnitBlock looks at what systemd would not: that the unit fits our names. systemd's own check
// is in TestInteropUnits.
func testUnitBlock(t *testing.T, b readmeBlock) {
	var known []string
	for _, s := range services(config.Listen{}) {
		known = append(known, s.name)
	}
	for line := range strings.Lines(b.text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "FileDescriptorName":
			if !slices.Contains(known, value) {
				t.Errorf("README.md:%d: %s is no service of [listen]", b.line, value)
			}
		case "ExecStart", "ExecReload":
			testCommand(t, value)
		case "Sockets":
			for unit := range strings.FieldsSeq(value) {
				if name := strings.TrimSuffix(strings.TrimPrefix(unit, "relayd-"), ".socket"); !slices.Contains(known, name) {
					t.Errorf("README.md:%d: %s is no service of [listen]", b.line, name)
				}
			}
		}
	}
}

var placeWord = regexp.MustCompile(`[a-z0-9]+(/[a-z0-9]+)+`)

// testPicture knows that the rooms in the picture of a letter's walk exist.
func testPicture(t *testing.T, b readmeBlock) {
	places := placeWord.FindAllString(b.text, -1)
	if len(places) < 5 {
		t.Errorf("README.md:%d: only %q", b.line, places)
	}
	for _, p := range places {
		if !exists("../../" + p) {
			t.Errorf("README.md:%d: there is no %s", b.line, p)
		}
	}
}

// testCommandList is for blocks that change the machine: their commands are looked at.
func testCommandList(t *testing.T, b readmeBlock) {
	for line := range strings.Lines(b.text) {
		testCommand(t, strings.TrimSpace(line))
	}
}

// listed are the programs of others that the README may name without a test that runs them.
var listed = []string{"install", "ln", "useradd", "editor", "systemctl", "journalctl"}

// testCommand checks a command line without running it: that its verb, target and flags exist.
func testCommand(t *testing.T, line string) {
	t.Helper()
	line, _, _ = strings.Cut(line, " #")
	words := strings.Fields(line)
	switch filepath.Base(words[0]) {
	case "make":
		testMake(t, words[1:])
	case "relayd":
		testFlags(t, words[1:], help(t, "relayd"))
	case "relayctl":
		var verb []string
		for _, w := range words[1:] {
			if !verbWord.MatchString(w) {
				break
			}
			verb = append(verb, w)
		}
		if known := verbs(t); !slices.Contains(known, strings.Join(verb, " ")) {
			// A word may also be an argument of the verb before it.
			t.Errorf("%s: no such verb; there are %q", line, known)
			return
		}
		testFlags(t, words[1:], help(t, append([]string{"relayctl"}, verb...)...))
	default:
		if !slices.Contains(listed, words[0]) {
			t.Errorf("%s: nothing tests this command", line)
		}
	}
}

func testMake(t *testing.T, targets []string) {
	t.Helper()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("there is no make")
	}
	out, err := exec.Command("make", append([]string{"-n", "-C", "../.."}, targets...)...).CombinedOutput()
	if err != nil {
		t.Errorf("make %s: %v\n%s", targets, err, out)
	}
}

func testFlags(t *testing.T, words []string, help string) {
	t.Helper()
	for _, w := range words {
		flag, _, _ := strings.Cut(w, "=")
		if strings.HasPrefix(flag, "-") && !regexp.MustCompile(`(?m)^ .*(^|[ ,])`+flag+`\b`).MatchString(help) {
			t.Errorf("%s: there is no such flag in\n%s", flag, help)
		}
	}
}

// help is what PROGRAM VERB... --help prints.
func help(t *testing.T, words ...string) string {
	t.Helper()
	var out bytes.Buffer
	code := 0
	args := append(slices.Clone(words[1:]), "--help")
	if words[0] == "relayd" {
		code = run(t.Context(), args, &out, &out)
	} else {
		code = ctl.Run(t.Context(), args, ctl.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard,
			Getenv: func(string) string { return "" }, Now: time.Now})
	}
	if code != exitDone {
		t.Errorf("%q exits with %d", words, code)
	}
	return out.String()
}

var (
	verbWord    = regexp.MustCompile(`^[a-z][a-z-]*$`)
	helpCommand = regexp.MustCompile(`(?m)^  ([a-z-]+) +[A-Z]`)
)

// verbs are all commands of relayctl that do something, as words: "queue ls". Help about help is
// left out.
func verbs(t *testing.T) (all []string) {
	t.Helper()
	var walk func(path []string)
	walk = func(path []string) {
		text := help(t, append([]string{"relayctl"}, path...)...)
		_, below, group := strings.Cut(text, "Available Commands:")
		if !group || len(path) == 1 && path[0] == "mail" {
			all = append(all, strings.Join(path, " "))
		}
		if !group {
			return
		}
		below, _, _ = strings.Cut(below, "\n\n")
		for _, m := range helpCommand.FindAllStringSubmatch(below, -1) {
			if m[1] != "help" {
				walk(append(slices.Clone(path), m[1]))
			}
		}
	}
	walk(nil)
	return all
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// TestREADMEVerbs compares the README's table of verbs with the verbs there are, and the flags
// each row names with those the verb takes.
func TestREADMEVerbs(t *testing.T) {
	t.Parallel()
	var told []string
	for line := range strings.Lines(readmeText(t)) {
		if !strings.HasPrefix(line, "| `relayctl") {
			continue
		}
		cells := strings.Split(line, " | ")
		var group, row []string
		for _, m := range codeSpan.FindAllStringSubmatch(cells[0], -1) {
			words, ours := strings.CutPrefix(m[1], "relayctl ")
			var verb []string
			if !ours {
				verb = slices.Clone(group)
			}
			for w := range strings.FieldsSeq(words) {
				if !verbWord.MatchString(w) {
					break
				}
				verb = append(verb, w)
			}
			if ours {
				group = verb[:len(verb)-1]
			}
			row = append(row, strings.Join(verb, " "))
		}
		told = append(told, row...)
		var text strings.Builder
		for _, verb := range row {
			text.WriteString(help(t, append([]string{"relayctl"}, strings.Fields(verb)...)...))
		}
		for _, m := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
			testFlags(t, strings.Fields(m[1]), text.String())
		}
	}
	there := verbs(t)
	slices.Sort(told)
	slices.Sort(there)
	if !slices.Equal(told, there) {
		t.Errorf("the README's table has\n%q\nrelayctl has\n%q", told, there)
	}
}

// TestREADMECommands looks at the commands in the running text.
func TestREADMECommands(t *testing.T) {
	t.Parallel()
	for line := range strings.Lines(readmeText(t)) {
		if strings.HasPrefix(line, "|") {
			continue // TestREADMEVerbs
		}
		for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
			for _, program := range []string{"make ", "relayd ", "relayctl ", "systemctl "} {
				if strings.HasPrefix(m[1], program) {
					testCommand(t, m[1])
				}
			}
		}
	}
}

// TestREADMERooms compares the table of rooms with the packages there are.
func TestREADMERooms(t *testing.T) {
	t.Parallel()
	told := map[string]bool{}
	_, table, _ := strings.Cut(readmeText(t), "| room | what it does |")
	for line := range strings.Lines(strings.TrimPrefix(table, "\n")) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if m := codeSpan.FindStringSubmatch(line); m != nil {
			told[m[1]] = true
		}
	}
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, "relayd/")
		if !told[room] && room != "cmd/relayctl/ctl" {
			t.Errorf("%s is not in the README's table of rooms", room)
		}
		delete(told, room)
	}
	for room := range told {
		t.Errorf("the README's table of rooms has %s, which is no package", room)
	}
}

// TestREADMEMetrics: what the README says of Prometheus.
func TestREADMEMetrics(t *testing.T) {
	t.Parallel()
	o := openDevOffice(t, "--listen", "metrics=127.0.0.1:0")
	wantAll(t, scraped(t, o.addrs["metrics"]), `^relayd_`)
}
