package smtpd

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// The decoder comes to what the definition says, wherever the wire and the reader cut the text.
func TestDecoderAgainstTheDefinition(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "bc", ".", "..", "\r", "\n", "\r\n", "\r\n", "\r\n.", "\r\n.\r\n", "\n.\n", "\x00"}
	for range 20_000 {
		var b strings.Builder
		for range rng.IntN(10) {
			b.WriteString(parts[rng.IntN(len(parts)-rng.IntN(2))])
		}
		in := b.String()
		for _, d := range []decoder{{dots: true}, {dots: true, normalize: true}, {dots: true, normalize: true, anyLF: true}} {
			want, wantEnd, wantBad := define(in, d)
			got, end, bad := decodeInPieces(in, d, rng)
			if end != wantEnd || bad != wantBad || end && !bad && got != want {
				t.Fatalf("%q (%+v): got %q, end %v, bad %v; want %q, %v, %v", in, d, got, end, bad, want, wantEnd, wantBad)
			}
			if strings.Contains(got, "\x00") || newlines.ReplaceAllString(got, "\r\n") != got {
				t.Fatalf("%q (%+v): %q was given out", in, d, got)
			}
		}
	}
}

var newlines = regexp.MustCompile("\r\n|\r$|\r|\n")

// define says what a letter is: it ends at the first CRLF.CRLF, the dots at line starts were
// stuffed, and what is a bare CR or LF in it is bad.
func define(in string, d decoder) (text string, end, bad bool) {
	if d.anyLF {
		return defineLF(in)
	}
	normalize := d.normalize
	in = "\r\n" + in
	i := strings.Index(in, "\r\n.\r\n")
	if i < 0 {
		i = len(in) - 2
	} else {
		end = true
	}
	if !end {
		// What is bad may be seen only later.
		return "", false, false
	}
	text = in[2 : i+2]
	bad = strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n") && !normalize || strings.Contains(text, "\x00")
	text = strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n")[2:]
	if normalize {
		text = newlines.ReplaceAllString(text, "\r\n")
	}
	return text, end, bad
}

var (
	lineOfDot = regexp.MustCompile("\n\\.\r?\n")
	stuffing  = regexp.MustCompile("\n\\.")
)

// defineLF is the same for a client that speaks LF: a line ends with LF, and a CR before it
// belongs to that.
func defineLF(in string) (text string, end, bad bool) {
	in = "\n" + in
	at := lineOfDot.FindStringIndex(in)
	if at == nil {
		return "", false, false
	}
	text = stuffing.ReplaceAllString(in[:at[0]+1], "\n")[1:]
	return newlines.ReplaceAllString(text, "\r\n"), true, strings.Contains(text, "\x00")
}

func decodeInPieces(in string, d decoder, rng *rand.Rand) (text string, end, bad bool) {
	dst := make([]byte, 8)
	src := []byte(in)
	have := 0
	for !end && (have < len(src) || len(src) > 0) {
		if have == 0 {
			have = 1 + rng.IntN(len(src))
		}
		nd, ns, e := d.decode(dst[:1+rng.IntN(len(dst))], src[:have])
		if !bad {
			text += string(dst[:nd])
		}
		bad = bad || d.bad != clean
		src, have, end = src[ns:], have-ns, e
	}
	if !end {
		return "", false, false
	}
	return text, end, bad
}

func TestSplitPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"FROM:<a@b>":                  "<a@b>|",
		"from: <a@b> SIZE=1":          "<a@b>| SIZE=1",
		`FROM:<"a> X=1 \" >"@b> X=2`:  `<"a> X=1 \" >"@b>| X=2`,
		"FROM:a@b SIZE=1":             "<a@b>|SIZE=1",
		"FROM:<>":                     "<>|",
		"FROM:":                       "no",
		"FROM: ":                      "no",
		"FROM:a>@b":                   "no",
		`FROM:"a b"@c`:                "no",
		"FROM:<a@b":                   "no",
		`FROM:<"a@b>`:                 "no",
		"FROM:<a@b>x":                 "no",
		"TO:<a@b>":                    "no",
		"FROM":                        "no",
		`FROM:<"\">"@b> AUTH=<x>`:     `<"\">"@b>| AUTH=<x>`,
		"FROM:<@a,@b:c@d> SMTPUTF8":   "<@a,@b:c@d>| SMTPUTF8",
		"FROM:<a@b> BODY=7BIT SIZE=1": "<a@b>| BODY=7BIT SIZE=1",
	} {
		path, params, ok := splitPath(in, "FROM:")
		got := path + "|" + params
		if !ok {
			got = "no"
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
