//go:build peers

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tree is a process with all its descendants.
type tree struct{ root int }

// clockTick is what /proc/PID/stat counts CPU time in (USER_HZ; 100 on every Linux that Go runs on).
const clockTick = 10 * time.Millisecond

// processStat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type processStat struct {
	parent int
	cpu    time.Duration // its own and of those of its children that ended
}

// each calls f for every process of the tree.
func (t tree) each(f func(pid int, s processStat)) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	stats, children := map[int]processStat{}, map[int][]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		if s, ok := statOf(pid); ok {
			stats[pid] = s
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	for todo := []int{t.root}; len(todo) > 0; {
		pid := todo[0]
		todo = append(todo[1:], children[pid]...)
		if s, ok := stats[pid]; ok {
			f(pid, s)
		}
	}
}

func statOf(pid int) (s processStat, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, false
	}
	// The command's name may hold blanks and brackets; the fields after it do not.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 15 {
		return s, false
	}
	number := func(i int) int { n, _ := strconv.Atoi(string(fields[i])); return n }
	s.parent = number(1)
	s.cpu = time.Duration(number(11)+number(12)+number(13)+number(14)) * clockTick
	return s, true
}

// cpu is what the tree has used since its root began.
func (t tree) cpu() (sum time.Duration) {
	t.each(func(_ int, s processStat) { sum += s.cpu })
	return sum
}

// memory is the resident memory of the tree in octets; what its processes share counts once (PSS).
func (t tree) memory() (sum int64) {
	t.each(func(pid int, _ processStat) {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				sum += kib << 10
			}
		}
	})
	return sum
}

// watch measures a tree while something happens.
type watch struct {
	tree  tree
	cpu   time.Duration
	stop  chan struct{}
	done  sync.WaitGroup
	peak  int64
	begin time.Time
}

func (t tree) watch() *watch {
	w := &watch{tree: t, cpu: t.cpu(), stop: make(chan struct{}), begin: time.Now()}
	w.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.peak = max(w.peak, t.memory())
			case <-w.stop:
				w.peak = max(w.peak, t.memory())
				return
			}
		}
	})
	return w
}

// cost is what a tree spent.
type cost struct {
	took, cpu time.Duration
	peak      int64 // resident octets
}

func (w *watch) end() cost {
	c := cost{took: time.Since(w.begin)}
	close(w.stop)
	w.done.Wait()
	c.cpu, c.peak = w.tree.cpu()-w.cpu, w.peak
	return c
}
