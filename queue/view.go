package queue

import (
	"errors"
	"fmt"
	"io"

	"relayd/relay"
)

// View reads a queue that no daemon runs on. It changes nothing, not even what is damaged.
type View struct{ store }

// OpenReadOnly opens the queue in dir for reading; ErrInUse when a daemon runs, which is then the
// one to ask. While a View is open a daemon cannot start.
func OpenReadOnly(dir string) (*View, error) {
	v := &View{store{layout: layout{dir}}}
	// Open first: a daemon that holds the lock may be writing what scan would read.
	db, err := openDB(v.layout.db(), true)
	if err != nil {
		return nil, err
	}
	if _, err := scan(v.layout.db(), nil, func(_, _ []byte) {}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	v.store.db = db
	return v, nil
}

// Body opens a letter as Queue.Body does.
func (v *View) Body(id relay.ID) (io.ReadSeekCloser, error) {
	b, err := v.store.open(id)
	if errors.Is(err, errBody) || errors.Is(err, errRecord) {
		return nil, fmt.Errorf("queue: letter %s is %w: %w", id, ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close lets a daemon start.
func (v *View) Close() error { return v.store.db.Close() }
