package users

import "container/list"

// recent is a map that holds so many entries and no more: a new one takes the place of the one
// that was not put for longest.
type recent[K comparable, V any] struct {
	most  int
	order *list.List // of entry[K, V], the newest in front
	index map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key K
	val V
}

func newRecent[K comparable, V any](most int) recent[K, V] {
	return recent[K, V]{most, list.New(), map[K]*list.Element{}}
}

// get returns the value of k, nil for none.
func (r recent[K, V]) get(k K) *V {
	if e := r.index[k]; e != nil {
		return &e.Value.(*entry[K, V]).val
	}
	return nil
}

// put returns the value of k, made now if there was none, and makes it the newest.
func (r recent[K, V]) put(k K) *V {
	e := r.index[k]
	if e == nil {
		if len(r.index) == r.most {
			r.drop(r.order.Back().Value.(*entry[K, V]).key)
		}
		e = r.order.PushFront(&entry[K, V]{key: k})
		r.index[k] = e
	}
	r.order.MoveToFront(e)
	return &e.Value.(*entry[K, V]).val
}

func (r recent[K, V]) drop(k K) {
	if e := r.index[k]; e != nil {
		r.order.Remove(e)
		delete(r.index, k)
	}
}

// all yields the entries, the newest first; the current one may be dropped.
func (r recent[K, V]) all(yield func(K, *V) bool) {
	for e := r.order.Front(); e != nil; {
		next := e.Next()
		have := e.Value.(*entry[K, V])
		if !yield(have.key, &have.val) {
			return
		}
		e = next
	}
}
