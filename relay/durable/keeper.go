package durable

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"relayd/relay"
)

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
		if !relay.Sleep(ctx, keeperPause) {
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

// MaxLine is the longest line, in octets, that most files of a Keeper need.
const MaxLine = bufio.MaxScanTokenSize

// ReadLines calls line for each line of the file at path, without its end; none for a file that is
// missing. It reads maxFile octets at most, and ends with bufio.ErrTooLong at a line of maxLine octets
// or more. line may keep nothing of text.
func ReadLines(path string, maxFile int64, maxLine int, line func(text []byte)) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxFile))
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line(lines.Bytes())
	}
	return lines.Err()
}
