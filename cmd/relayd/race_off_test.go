//go:build !race

package main

// raceEnabled says that the race detector takes its several times the memory.
const raceEnabled = false
