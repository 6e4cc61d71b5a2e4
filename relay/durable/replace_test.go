package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"relayd/relay/durable"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path+".new", []byte("half of one, left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if err := durable.Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("the file: %q", got)
		}
	}
	if err := os.Mkdir(path+"d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(path+"d", []byte("x")); err == nil {
		t.Error("a folder was replaced by a file")
	}
	left, _ := filepath.Glob(path + "*.new")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || len(left) > 0 {
		t.Errorf("%v %v, left %q", info.Mode(), err, left)
	}
}
