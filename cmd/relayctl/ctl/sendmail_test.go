package ctl

import (
	"errors"
	"reflect"
	"testing"
)

// Command lines of real programs.
func TestMailArgs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want mailArgs
	}{
		{[]string{"-t", "-i"}, mailArgs{fromHeader: true, wholeInput: true}},
		{[]string{"-ti", "-fann@x", "-FAnn Lee"}, mailArgs{fromHeader: true, wholeInput: true, from: "ann@x", name: "Ann Lee"}},
		{[]string{"-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"}, mailArgs{name: "CronDaemon", wholeInput: true, rcpts: []string{"root"}}}, // cron
		{[]string{"-oi", "-oem", "-f", "", "--", "-odd", "b"}, mailArgs{wholeInput: true, from: "<>", rcpts: []string{"-odd", "b"}}},
		{[]string{"-i", "-v", "-N", "never", "-O", "DeliveryMode=b", "-bm", "-r", "a", "b", "-em"},
			mailArgs{wholeInput: true, verbose: true, from: "a", rcpts: []string{"b"}}},
		{[]string{"--data-dir=x", "--json", "--config", "y", "a"}, mailArgs{dataDir: "x", json: true, config: "y", rcpts: []string{"a"}}},
	} {
		if got, err := parseMailArgs(c.args); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, %v", c.args, got, err)
		}
	}
	for _, args := range [][]string{{"-f"}, {"-bd"}, {"-bp"}, {"-q"}, {"--what"}, {"--config"}} {
		if _, err := parseMailArgs(args); err == nil {
			t.Errorf("%q is taken", args)
		} else if _, ok := errors.AsType[*usageError](err); !ok {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestAddressesIn(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"ann":                                   {"ann"},
		"Ann <ann@x>, bob@y (Bob, \"x\" \\) z)": {"ann@x", "bob@y"},
		`"Lee, Ann" <ann@x>,, "a,b"@y`:          {"ann@x", `"a,b"@y`},
		"us: ann, Bob <bob@y>;, c@z":            {"ann", "bob@y", "c@z"},
		"undisclosed-recipients:;":              nil,
		" a @ x ":                               {"a@x"},
		"<a@x":                                  {"a@x"},
		"":                                      nil,
	} {
		if got := addressesIn(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
