//go:build interop

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// failing runs f while the daemon's system calls of these names fail with EIO, as those of a dying
// disk do.
func (b *stricken) failing(calls string, f func()) {
	b.t.Helper()
	pid := b.cmd.Process.Pid
	cmd := exec.Command("strace", "-f", "-q", "-o", "/dev/null", "-p", fmt.Sprint(pid), "-e", "trace="+calls, "-e", "inject="+calls+":error=EIO")
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.traced(true)
	f()
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	b.traced(false)
}

// traced waits until strace holds every thread of the daemon, or none.
func (b *stricken) traced(yes bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", b.cmd.Process.Pid))
		held := 0
		for _, name := range all {
			if text, _ := os.ReadFile(name); !strings.Contains(string(text), "TracerPid:\t0\n") {
				held++
			}
		}
		if yes && held == len(all) || !yes && held == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("strace holds %d threads of %d", held, len(all))
		}
	}
}

// A disk that cannot flush, and one that cannot write the queue's database: nothing is promised
// that is not safe, people and operator still read, and when the errors end mail flows without a
// restart. What was promised arrives, once.
func TestInteropIOErrors(t *testing.T) {
	every := [][]string{{ann}, {bob}, {ann, bob}}
	t.Run("flush", func(t *testing.T) {
		b := strike(t, "1KB")
		b.send(3_000, ann, bob)
		b.failing("fsync,fdatasync,syncfs", func() {
			for range 3 {
				for _, rcpts := range every {
					if reply := b.send(3_000, rcpts...); reply == "250" {
						t.Errorf("accepted though no flush succeeds: %q", rcpts)
					}
				}
			}
			b.reads(1)
		})
		b.flows()
		b.account(b.correspondent(), "")
	})
	t.Run("database", func(t *testing.T) {
		b := strike(t, "1KB")
		b.send(3_000, ann, bob)
		b.failing("pwrite64", func() {
			for range 3 {
				for _, rcpts := range every {
					b.send(3_000, rcpts...)
				}
			}
			b.reads(1)
		})
		b.flows()
		b.account(b.correspondent(), "")
	})
}

// reads wants at least so many letters at ann's, and the operator's eyes open.
func (b *stricken) reads(letters int) {
	b.t.Helper()
	if got := strings.Count(b.collect(false), "The end.\r\n"); got < letters {
		b.t.Errorf("POP3 reads %d letters", got)
	}
	if ls := b.ctl("", "--json", "queue", "ls"); !strings.Contains(ls, "partner.test") {
		b.t.Errorf("queue ls:\n%s", ls)
	}
	b.ctl("", "status")
}
