package config_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"relayd/config"
)

var update = flag.Bool("update", false, "rewrite what the files of testdata want")

// Every file of testdata/bad is one wrong configuration with all the sentences it deserves.
func TestBadFiles(t *testing.T) {
	eachFile(t, "testdata/bad", func(t *testing.T, toml []byte) string {
		c, err := config.Parse("relayd.toml", toml)
		if err == nil || c != nil {
			t.Fatalf("accepted: %+v", c)
		}
		return err.Error() + "\n"
	})
}

// Every file of testdata/doubtful is accepted, with warnings.
func TestDoubtfulFiles(t *testing.T) {
	eachFile(t, "testdata/doubtful", func(t *testing.T, toml []byte) string {
		c, err := config.Parse("relayd.toml", toml)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, w := range c.Warnings {
			b.WriteString(w.String() + "\n")
		}
		return b.String()
	})
}

func eachFile(t *testing.T, dir string, say func(*testing.T, []byte) string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := say(t, ar.Files[0].Data)
			if *update {
				ar.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(ar.Files[1].Data), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// Parse never panics, and whatever it complains about has a place within the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte(config.Example))
	for _, dir := range []string{"testdata/bad/*", "testdata/doubtful/*"} {
		files, _ := filepath.Glob(dir)
		for _, file := range files {
			if ar, err := txtar.ParseFile(file); err == nil {
				f.Add(ar.Files[0].Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("relayd.toml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		var complaints []config.Complaint
		if err != nil {
			invalid, ok := errors.AsType[*config.Invalid](err)
			if !ok || len(invalid.Complaints) == 0 {
				t.Fatalf("error %#v", err)
			}
			complaints = invalid.Complaints
		} else {
			complaints = c.Warnings
		}
		lines := bytes.Count(data, []byte("\n")) + 1
		for _, c := range complaints {
			if c.File != "relayd.toml" || c.Line < 1 || c.Line > lines || c.Column < 1 || c.Text == "" {
				t.Errorf("no place: %#v", c)
			}
			if i := strings.IndexFunc(c.String(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }); i >= 0 {
				t.Errorf("control character in %q", c.String())
			}
		}
	})
}
