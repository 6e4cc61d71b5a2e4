package main

import (
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// tellManager tells the service manager how we are, if there is one (sd_notify(3)). It is a
// courtesy: nothing depends on it.
func tellManager(state string) { daemon.SdNotify(false, state) }

// monotonic is the clock systemd compares a RELOADING=1 with, in microseconds.
func monotonic() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano() / 1000
}
