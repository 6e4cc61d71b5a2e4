package queue

import (
	"bytes"
	"encoding/binary"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// maxGroup is the number of operations that share a transaction at most.
const maxGroup = 512

// op is one change of the queue. apply writes it into the transaction it shares with others, and
// sees what those before it wrote; an error of apply fails them all, so what is wrong with one
// item alone it keeps for its owner. publish changes the index once the transaction is durable.
type op struct {
	apply   func(*tx) error
	publish func(*index)
}

// tx is the transaction of a group.
type tx struct {
	items, corrupt *bbolt.Bucket
	dirty          bool
	added          int        // items, less those removed
	recorded       []relay.ID // young letters that get their records
}

func newTx(b *bbolt.Tx) *tx {
	return &tx{items: b.Bucket(itemsBucket), corrupt: b.Bucket(corruptBucket)}
}

// seal records how many items there are, in the sequence of the bucket, where it costs no page. A
// damaged page can lose records without a trace; Open would then take their bodies for orphans.
func (t *tx) seal() error {
	if t.added == 0 {
		return nil
	}
	return t.items.SetSequence(t.items.Sequence() + uint64(t.added))
}

// get is the record of k, valid until the transaction ends; nil when there is none.
func (t *tx) get(k Key) []byte { return t.items.Get([]byte(k.String())) }

// add enters the record of a new item.
func (t *tx) add(k Key, record []byte) error {
	t.added++
	return t.put(k, record)
}

// addAll enters new items of one letter, whose body has the checksum sum.
func (t *tx) addAll(items []*Item, sum uint32) error {
	records, err := encodeAll(items, sum)
	if err != nil {
		return err
	}
	for i, it := range items {
		if err := t.add(it.Key(), records[i]); err != nil {
			return err
		}
	}
	return nil
}

// put replaces the record of an item.
func (t *tx) put(k Key, record []byte) error {
	t.dirty = true
	return t.items.Put([]byte(k.String()), record)
}

// patch writes the record old of k again with the state of h.
func (t *tx) patch(k Key, old []byte, h header) error {
	b := bytes.Clone(old)
	h.put(b)
	binary.BigEndian.PutUint32(b[2:], recordSum(k.String(), b))
	return t.put(k, b)
}

func (t *tx) delete(k Key) error {
	t.dirty = true
	t.added--
	return t.items.Delete([]byte(k.String()))
}

// setAside moves the record of a raw key to the corrupt ones.
func (t *tx) setAside(key []byte, reason error) error {
	v := t.items.Get(key)
	if v == nil {
		return nil
	}
	t.dirty = true
	kept := append([]byte(reason.Error()+"\n"), v...)
	if err := t.corrupt.Put(key, kept); err != nil {
		return err
	}
	t.added--
	return t.items.Delete(key)
}
