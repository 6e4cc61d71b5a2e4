package users

import "testing"

func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	r := newRecent[int, string](3)
	for i := range 5 {
		*r.put(i) = string(rune('a' + i))
		if i >= 2 {
			r.put(2) // used again and again, it stays
		}
	}
	var got string
	for k, v := range r.all {
		if got += *v; k == 4 {
			r.drop(k)
		}
	}
	if got != "ced" || len(r.index) != 2 || r.order.Len() != 2 || r.get(0) != nil || r.get(4) != nil || *r.get(3) != "d" {
		t.Errorf("got %q, %v", got, r.index)
	}
}
