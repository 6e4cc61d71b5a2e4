package relaytest

import (
	"os/exec"
	"testing"
)

// CopyDisk copies the image of a mounted file system as it lies on its disk, whatever stands in memory: what
// a power cut leaves. The kernel may write to the image at any time, and half of what was before a write
// and half of what was after it is no disk that ever was; so it copies until nothing has changed
// between the copying and a comparison.
func CopyDisk(t testing.TB, image, to string) {
	t.Helper()
	for range 100 {
		if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", image, to).CombinedOutput(); err != nil {
			t.Fatalf("relaytest: %v: %s", err, out)
		}
		if exec.CommandContext(t.Context(), "cmp", "-s", image, to).Run() == nil {
			return
		}
	}
	t.Fatalf("relaytest: %s is written to all the time", image)
}
