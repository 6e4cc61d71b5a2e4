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
	if err := scan(v.layout.db(), func(_, _ []byte) {}); err != nil {
		return nil, err
	}
	var err error
	if v.store.db, err = openDB(v.layout.db(), true); err != nil {
		return nil, err
	}
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
