package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// files are a certificate chain and its key in PEM, renewed by somebody else.
type files struct {
	Pair
	loaded [2]stamp // of the pair in service
}

// stamp tells one state of a file from another.
type stamp struct {
	modified int64 // nanoseconds
	size     int64
	inode    uint64
}

func (f *files) kind() string { return FromFile }
func (f *files) name() string { return f.Cert }

// errExpired is a renewal that is over already.
var errExpired = errors.New("it has expired")

func (f *files) load(current *tls.Certificate, now time.Time) (*tls.Certificate, error) {
	var state [2]stamp
	var text [2][]byte
	for i, name := range []string{f.Cert, f.Key} {
		var err error
		if state[i], err = stampOf(name); err != nil {
			return nil, err
		}
	}
	if current != nil && state == f.loaded {
		return current, nil
	}
	for i, name := range []string{f.Cert, f.Key} {
		var err error
		if text[i], err = readFile(name); err != nil {
			return nil, err
		}
	}
	c, err := pair(text[0], text[1])
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", f.Cert, f.Key, err)
	}
	if current != nil && now.After(c.Leaf.NotAfter) && c.Leaf.NotAfter.Before(current.Leaf.NotAfter) {
		return nil, fmt.Errorf("%s: %w", f.Cert, errExpired)
	}
	f.loaded = state
	return c, nil
}

func stampOf(name string) (stamp, error) {
	info, err := os.Stat(name)
	if err != nil {
		return stamp{}, err
	}
	s := stamp{modified: info.ModTime().UnixNano(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s, nil
}

// maxFile bounds a PEM file: a chain has a few KiB.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than 1 MiB", name)
	}
	return data, err
}
