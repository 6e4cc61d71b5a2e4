package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"relayd/config"
	"relayd/queue"
	"relayd/relay/admin"
	"relayd/relay/orders"
)

// devName instead of a file name means the development office of relayd --dev.
const devName = "dev"

// ordersFile, in the data directory, keeps what is paused.
const ordersFile = "orders"

// devData is where relayd --dev keeps its data, below the folder it is started in.
const devData = "data"

// load reads the configuration that --config names.
func (a *app) load() (*config.Config, error) {
	if a.isDev() {
		return config.Dev(devData), nil
	}
	return config.Load(a.configFile)
}

// isDev says whether --config means the development office, not a file that is called so.
func (a *app) isDev() bool {
	if a.configFile != devName {
		return false
	}
	_, err := os.Stat(devName)
	return errors.Is(err, fs.ErrNotExist)
}

// dataDir is where the data lies.
func (a *app) dataDir() (string, error) {
	if a.dataFlag != "" {
		return filepath.Abs(a.dataFlag)
	}
	cfg, err := a.load()
	if err != nil {
		return "", err
	}
	return cfg.DataDir, nil
}

// dial connects to the running relayd.
func (a *app) dial() (*admin.Client, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	c, err := admin.Dial(dir)
	if errors.Is(err, admin.ErrNotRunning) {
		err = fmt.Errorf("%w (no answer on %s)", admin.ErrNotRunning, filepath.Join(dir, admin.SocketName))
		if a.dataFlag == "" && a.isDev() {
			err = hint(err, "make run, in this folder, starts the development office")
		}
		return nil, err
	}
	return c, err
}

// withRelayd asks the running relayd.
func (a *app) withRelayd(ask func(*admin.Client) error) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return ask(c)
}

// ask puts one question to the running relayd.
func ask[T any](ctx context.Context, a *app, question func(*admin.Client, context.Context) (T, error)) (answer T, err error) {
	err = a.withRelayd(func(c *admin.Client) error {
		answer, err = question(c, ctx)
		return err
	})
	return answer, err
}

// store is what can be read of a queue, by the socket or from its files.
type store interface {
	List(ctx context.Context, f admin.Filter) iter.Seq2[admin.Item, error]
	Get(ctx context.Context, name string) ([]admin.Item, error)
	Body(ctx context.Context, name string) (io.ReadCloser, error)
	Export(ctx context.Context, name string) (admin.Exported, error)
}

// source is a queue to read.
type source struct {
	store
	close  func()
	pauses func(context.Context) ([]orders.Pause, error)
	// files says that no daemon runs and the files themselves are read. While they are open no
	// daemon can start, so nothing that may wait for the reader of stdout happens meanwhile.
	files bool
}

// open finds a queue to read: the running daemon's, or else the files, and says so.
func (a *app) open() (source, error) {
	dir, err := a.dataDir()
	if err != nil {
		return source{}, err
	}
	c, err := admin.Dial(dir)
	if err == nil {
		return source{store: c, pauses: c.Pauses, close: c.Close}, nil
	}
	if !errors.Is(err, admin.ErrNotRunning) {
		return source{}, err
	}
	view, err := queue.OpenReadOnly(filepath.Join(dir, "queue"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return source{}, noQueue(dir)
	case err != nil:
		return source{}, fmt.Errorf("relayd is not running, and its queue cannot be read: %w", err)
	}
	a.note("relayd is not running: reading the queue in %s", dir)
	reader := admin.NewReader(view)
	pauses, _, err := orders.Read(filepath.Join(dir, ordersFile))
	if err != nil {
		a.note("what is paused cannot be read: %v", err)
	}
	reader.Pauses = func() []orders.Pause { return pauses }
	return source{store: reader, pauses: func(context.Context) ([]orders.Pause, error) { return pauses, nil }, close: sync.OnceFunc(func() { view.Close() }), files: true}, nil
}

func noQueue(dir string) error {
	return hint(fmt.Errorf("relayd is not running, and there is no queue in %s", dir),
		"is this the right data directory? --config FILE or --data-dir DIR name another")
}
