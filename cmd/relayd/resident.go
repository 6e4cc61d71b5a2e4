package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay"
)

// How much garbage there may be, as a percentage of what lives. Of little, much: it costs nothing, and
// looking for it after every few dozen letters takes a tenth of our time. Of much, little: what lives
// then is mostly the buffers of clients in the middle of a letter, which the collector does not look
// into, and a thousand of them take 80 MB instead of 130.
const (
	garbageOfLittle = 200 // collected at 8 MB at the earliest
	garbageOfMuch   = 50
	much            = 4 << 20 // octets that live
)

// collectGarbage sets the pace of the collector, from now on after each of its rounds; GOGC in the
// environment has the last word.
func collectGarbage() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := garbageOfLittle
	if live[0].Value.Uint64() > much {
		percent = garbageOfMuch
	}
	debug.SetGCPercent(percent)
	runtime.AddCleanup(new([64]byte), func(struct{}) { collectGarbage() }, struct{}{}) // the next round finds it
}

// settled is when a start is over: listeners serve, keys are made, the first look-ups are done.
const settled = time.Second

// forgetStart gives back the memory that only the start needed: garbage, and the pages of the program
// that read configurations, made keys and opened databases. The kernel maps sixteen pages
// for each that is touched, so that three quarters of what relayd takes at rest would be code that
// never runs again. What is needed comes back from the page cache.
func forgetStart(ctx context.Context) {
	if !relay.Sleep(ctx, settled) {
		return
	}
	debug.FreeOSMemory()
	unmapProgram()
}

// unmapProgram takes the read-only pages of the program out of our memory. They are the file's: the
// kernel refusing costs nothing but memory.
func unmapProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var access, offset, device, inode, file string
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s %s", &from, &to, &access, &offset, &device, &inode, &file)
		if n == 7 && file == program && access[1] == '-' {
			unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
