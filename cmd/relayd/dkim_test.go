package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdSigned checks the DKIM signatures of letters that a remote has kept, by the keys in the
// story's DNS. The selectors are those of this month, with END behind them.
func cmdSigned(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file matches %s", args[0])
	}
	selector := regexp.MustCompile(`\bs=[re]\d{6}` + strings.Join(args[2:], "") + `;`)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, ts.Getenv("DNS"))
	}}
	options := &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) { return resolver.LookupTXT(context.Background(), name) }}
	for _, file := range files {
		letter, err := os.ReadFile(file)
		ts.Check(err)
		header, _, _ := bytes.Cut(letter, []byte("\r\n\r\n"))
		found, err := dkim.VerifyWithOptions(bytes.NewReader(letter), options)
		ts.Check(err)
		if n := len(selector.FindAll(header, -1)); fmt.Sprint(len(found)) != args[1] || n != len(found) {
			ts.Fatalf("%s has %d signatures, %d by the selector, want %s\n%s", file, len(found), n, args[1], letter)
		}
		for _, v := range found {
			if v.Err != nil || v.Domain != "office.test" {
				ts.Fatalf("%s: %s: %v\n%s", file, v.Domain, v.Err, letter)
			}
		}
	}
}
