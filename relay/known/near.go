package known

import (
	"strings"

	"relayd/relay"
)

// farthest is how many slips a name may have: one, and two where enough of it is right.
const (
	farthest  = 2
	longName  = 6 // octets before the last label
	otherLast = farthest + 1
)

// nearest is the one of names that d was probably meant to be: the fewest slips away, or else the
// same but for its last label (partner.com for partner.org). Among equals the first in the
// alphabet, so that the same slip always gets the same answer.
func nearest(d relay.Domain, names []relay.Domain) (best relay.Domain, ok bool) {
	name, _ := splitLast(d)
	limit := 1
	if len(name) >= longName {
		limit = farthest
	}
	rank := otherLast + 1
	for _, n := range names {
		if n == d || n == "" {
			continue
		}
		r := distance(string(d), string(n), limit)
		if r > limit {
			if other, _ := splitLast(n); other != name || name == "" {
				continue
			}
			r = otherLast
		}
		if r < rank || r == rank && n < best {
			best, rank = n, r
		}
	}
	return best, best != ""
}

func splitLast(d relay.Domain) (name, last string) {
	i := strings.LastIndexByte(string(d), '.')
	if i < 0 {
		return "", string(d)
	}
	return string(d[:i]), string(d[i+1:])
}

// distance counts the slips that make b of a: a letter too many, one missing, one wrong, two
// neighbours swapped (Damerau-Levenshtein in its "optimal string alignment" form). Anything above
// limit is limit+1.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var before []int // two rows up
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		least := next[0]
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			n := min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				n = min(n, before[j-1]+1)
			}
			next[j+1] = n
			least = min(least, n)
		}
		if least > limit {
			return limit + 1
		}
		before, row = row, next
	}
	return min(row[len(b)], limit+1)
}
