package durable_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"relayd/relay/durable"
)

// BenchmarkDesigns measures, on the file system of TMPDIR, the ways to make a letter of 10 KiB
// durable among which this package chose. Run it with TMPDIR on the disk in question.
func BenchmarkDesigns(b *testing.B) {
	// Nothing is removed before the end: ext4 is slow to make files where many were removed lately.
	root := b.TempDir()
	for _, design := range []struct {
		name string
		make func(dir string) (keep func(f *os.File, tmp, final string) error, end func())
	}{
		{"fsync,rename,fsync-dir", func(dir string) (func(*os.File, string, string) error, func()) {
			return func(f *os.File, tmp, final string) error {
				return first(f.Sync(), os.Rename(tmp, final), syncDir(dir))
			}, func() {}
		}},
		{"rename,fsync", func(string) (func(*os.File, string, string) error, func()) {
			return func(f *os.File, tmp, final string) error { return first(os.Rename(tmp, final), f.Sync()) }, func() {}
		}},
		{"rename,fsync,fsync-dir", func(dir string) (func(*os.File, string, string) error, func()) {
			return func(f *os.File, tmp, final string) error {
				return first(os.Rename(tmp, final), f.Sync(), syncDir(dir))
			}, func() {}
		}},
		{"rename,syncfs", func(dir string) (func(*os.File, string, string) error, func()) {
			return func(f *os.File, tmp, final string) error {
				return first(os.Rename(tmp, final), os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))))
			}, func() {}
		}},
		{"rename,Flusher", func(dir string) (func(*os.File, string, string) error, func()) {
			flush, err := durable.NewFlusher(dir)
			if err != nil {
				b.Fatal(err)
			}
			return func(f *os.File, tmp, final string) error {
				return first(os.Rename(tmp, final), flush.Flush(b.Context(), durable.Write{Files: []*os.File{f}, Dirs: []string{dir}}))
			}, func() { flush.Close() }
		}},
	} {
		for _, writers := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("%s/%d", design.name, writers), func(b *testing.B) {
				dir, err := os.MkdirTemp(root, "")
				if err != nil {
					b.Fatal(err)
				}
				keep, end := design.make(dir)
				defer end()
				writeAll(b, dir, writers, keep)
			})
		}
	}
}

func writeAll(b *testing.B, dir string, writers int, keep func(f *os.File, tmp, final string) error) {
	letter := make([]byte, 10<<10)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				final := filepath.Join(dir, fmt.Sprint(n))
				f, err := os.Create(final + ".tmp")
				if err == nil {
					_, err = f.Write(letter)
				}
				if err = first(err, keep(f, final+".tmp", final), f.Close()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s")
	b.ReportMetric(0, "ns/op")
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
