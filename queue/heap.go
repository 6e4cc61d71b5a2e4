package queue

import "container/heap"

// ranked is what a ranking holds: it knows who is due first and remembers its place, so that any
// member can be moved or taken out without a search.
type ranked[T any] interface {
	before(T) bool
	place() *int32
}

// ranking is a heap with the first due on top.
type ranking[T ranked[T]] struct{ list []T }

// out is the place of whoever is in no ranking.
const out int32 = -1

func (r *ranking[T]) first() (T, bool) {
	if len(r.list) == 0 {
		var none T
		return none, false
	}
	return r.list[0], true
}

// put enters x, or moves it to where it now belongs.
func (r *ranking[T]) put(x T) {
	if at := *x.place(); at != out {
		heap.Fix((*heapOf[T])(r), int(at))
		return
	}
	heap.Push((*heapOf[T])(r), x)
}

// remove takes x out, if it is in.
func (r *ranking[T]) remove(x T) {
	if at := *x.place(); at != out {
		heap.Remove((*heapOf[T])(r), int(at))
	}
}

// heapOf is the ranking as container/heap wants it.
type heapOf[T ranked[T]] ranking[T]

func (h *heapOf[T]) Len() int           { return len(h.list) }
func (h *heapOf[T]) Less(i, j int) bool { return h.list[i].before(h.list[j]) }

func (h *heapOf[T]) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	*h.list[i].place(), *h.list[j].place() = int32(i), int32(j)
}

func (h *heapOf[T]) Push(x any) {
	*x.(T).place() = int32(len(h.list))
	h.list = append(h.list, x.(T))
}

func (h *heapOf[T]) Pop() any {
	last := len(h.list) - 1
	x := h.list[last]
	var none T
	h.list[last] = none
	h.list = h.list[:last]
	*x.place() = out
	return x
}
