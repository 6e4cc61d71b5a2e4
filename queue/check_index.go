package queue

import "time"

const mendsIndex = "makes the index and its due times anew from the records"

// index checks the index against the number of records and against itself: counts, everybody in
// the right ranking, the rankings in order, and nobody waiting longer than the schedule asks.
func (c *checker) index() {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	x := c.q.index
	wrong := func(format string, args ...any) {
		c.complain(Fault{Kind: FaultIndex, Repair: mendsIndex}, format, args...)
	}
	young := 0
	for _, y := range c.q.young {
		young += len(y.items)
	}
	if x.items != c.report.Items+young {
		wrong("the index has %d items, the database %d, and young letters %d", x.items, c.report.Items, young)
	}
	items, held, taken, octets := 0, 0, 0, int64(0)
	latest := c.q.clock.in(max(c.q.schedule.Longest(), forgotten) + time.Minute)
	for id, l := range x.letters {
		octets += l.size
		for _, e := range l.entries {
			items++
			if e.held {
				held++
			}
			if e.taken {
				taken++
			}
			waits := !e.held || e.taken
			if in := e.isRanked(); in != waits {
				wrong("item %s/%s: waits %v, but ranked %v", id, e.dest.domain, waits, in)
			}
			if waits && !e.scheduled && e.due > latest {
				wrong("item %s/%s waits for %v, longer than the schedule ever asks", id, e.dest.domain, time.Until(c.q.clock.time(e.due)))
			}
		}
	}
	if items != x.items || held != x.held || taken != x.taken || octets != x.octets {
		wrong("the index counts %d items, %d held, %d taken, %d octets; it has %d, %d, %d, %d",
			x.items, x.held, x.taken, x.octets, items, held, taken, octets)
	}
	for domain, d := range x.dests {
		ranked := d.at != out && int(d.at) < len(x.due.list) && x.due.list[d.at] == d
		if waits := len(d.waiting.list) > 0; ranked != waits && !d.aside {
			wrong("domain %s: waits %v, but ranked %v", domain, waits, ranked)
		}
		if !d.waiting.inOrder() {
			wrong("domain %s: its items are not in the order they are due", domain)
		}
	}
	if !x.due.inOrder() {
		wrong("the domains are not in the order they are due")
	}
}

func (e *entry) isRanked() bool {
	list := e.dest.waiting.list
	return e.at != out && int(e.at) < len(list) && list[e.at] == e
}

// inOrder says whether nobody comes before the one above.
func (r *ranking[T]) inOrder() bool {
	for i := 1; i < len(r.list); i++ {
		if r.list[i].before(r.list[(i-1)/2]) {
			return false
		}
	}
	return true
}
