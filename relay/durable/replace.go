package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Replace puts data in the place of the file at path, for its owner alone, so that a crash leaves
// the old or the new one whole. One at a time for each path.
func Replace(path string, data []byte) error {
	temp := path + ".new"
	// What lies there was left by a crash.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("durable: %w", err)
	}
	err := write(temp, data)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("durable: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	defer dir.Close()
	return dir.Sync()
}

func write(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// keeperPause is the least time between two writes of a Keeper: what a crash may cost.
const keeperPause = 5 * time.Second

// Keeper keeps a small file equal to what somebody has in memory, off the path of whoever changes
// that: Changed never waits, and Run writes soon after.
type Keeper struct {
	path    string
	state   func() ([]byte, error)
	log     *slog.Logger
	changed chan struct{}
	writing sync.Mutex
}

// NewKeeper makes a Keeper of the file at path; state returns what is to be in it, and is called
// by Run, Save and Close.
func NewKeeper(path string, state func() ([]byte, error), log *slog.Logger) *Keeper {
	return &Keeper{path: path, state: state, log: log, changed: make(chan struct{}, 1)}
}

// Changed has the file written soon.
func (k *Keeper) Changed() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends. What changed last is left to Close.
func (k *Keeper) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		}
		if err := k.Save(); err != nil {
			k.log.Warn("a file cannot be written, and is tried again", "file", k.path, "err", err)
			k.Changed()
		}
		timer := time.NewTimer(keeperPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Save writes now; nil means that the file is durable.
func (k *Keeper) Save() error {
	k.writing.Lock()
	defer k.writing.Unlock()
	data, err := k.state()
	if err != nil {
		return err
	}
	return Replace(k.path, data)
}

// Close writes what has changed since the last write.
func (k *Keeper) Close() error {
	select {
	case <-k.changed:
		return k.Save()
	default:
		return nil
	}
}
