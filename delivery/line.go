package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"relayd/relay"
)

// When our own line counts as down, and what is done meanwhile.
const (
	lineDomains = 3                // that fail, and nobody answers
	lineProven  = 2                // of them are known to have taken mail before
	lineWindow  = 30 * time.Minute // in which they failed

	probeFirst   = time.Minute // between two attempts while it is down; doubles
	probeLongest = 5 * time.Minute
	// longestOutage is as much as one outage may stop the clocks: a smarthost that never comes back
	// must not keep letters for ever.
	longestOutage = 7 * 24 * time.Hour
	maxOutages    = 50 // remembered
	rampStart     = 4  // attempts at a time when it is back, doubling with each success
)

// line tells trouble of our own line from trouble of theirs: several unrelated destinations that
// cannot be connected to or looked up, while no remote says a word. While it is down one attempt at a
// time goes out as a probe, nothing is given up or warned about, and afterwards the time counts for
// nothing. The outages are kept in a file, so that a restart changes none of that.
type line struct {
	file   string
	total  int                     // Options.Total
	proven func(relay.Domain) bool // nil: all are

	mu      sync.Mutex
	failing map[relay.Domain]failure
	outages []outage // the last may be under way
	probe   time.Time
	pause   time.Duration
	ramp    int // attempts at a time; 0: all

	asking bool // others are being called, to find out
	asked  time.Time
	spoken int // how often a remote has said a word
}

type failure struct {
	first, last time.Time
	dns         bool
}

// outage is a time without a line; To is zero while it lasts.
type outage struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

// newLine reads the outages. A file that cannot be read is one of no outages: letters then age.
func newLine(file string, total int, proven func(relay.Domain) bool) (*line, error) {
	l := &line{file: file, total: total, proven: proven, failing: map[relay.Domain]failure{}}
	if file == "" {
		return l, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l.outages)
	}
	if err != nil || len(l.outages) > maxOutages {
		l.outages = nil
	}
	return l, err
}

func (l *line) isDown() bool {
	n := len(l.outages)
	return n > 0 && l.outages[n-1].To.IsZero()
}

// isQuiet says whether less than everything may go out.
func (l *line) isQuiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isDown() || l.ramp > 0
}

// downSince is when the line went down; zero while it is up.
func (l *line) downSince() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isDown() {
		return time.Time{}
	}
	return l.outages[len(l.outages)-1].From
}

// room is how many more attempts may start: a probe now and then while the line is down.
func (l *line) room(room, active int, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.isDown() && (active > 0 || now.Before(l.probe)):
		return 0
	case l.isDown():
		return min(room, 1)
	case l.ramp > 0:
		return min(room, max(l.ramp-active, 0))
	}
	return room
}

// probed puts the next probe off, after one has been taken.
func (l *line) probed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isDown() {
		l.pause = min(max(2*l.pause, probeFirst), probeLongest)
		l.probe = now.Add(l.pause)
	}
}

// lost is how much of the time from born to now there was no line.
func (l *line) lost(born, now time.Time) (sum time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.outages {
		from, to := o.From, o.To
		if to.IsZero() {
			to = now
		}
		if latest := from.Add(longestOutage); to.After(latest) {
			to = latest
		}
		if from.Before(born) {
			from = born
		}
		sum += max(to.Sub(from), 0)
	}
	return sum
}

// news is what an attempt tells of the line.
type news int

const (
	noNews    news = iota
	suspected      // it seems to be down, and that is to be made sure of
	wentDown
	cameUp
)

// heard takes in what an attempt came to. Its error is of the file; what it says holds all the same.
func (l *line) heard(domain relay.Domain, results []relay.Result, now time.Time) (news, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	spoke, dns, bad := hearLine(results)
	switch {
	case spoke:
		return l.works(now)
	case !bad || l.isDown():
		return noNews, nil
	}
	f, known := l.failing[domain]
	if !known {
		f.first = now
	}
	f.last, f.dns = now, dns
	l.failing[domain] = f
	if _, down := l.judge(now); !down {
		return noNews, nil
	}
	return suspected, nil
}

// works is called when a remote has said a word. Callers hold mu.
func (l *line) works(now time.Time) (news, error) {
	clear(l.failing)
	l.spoken++
	if l.ramp *= 2; l.ramp >= l.total {
		l.ramp = 0
	}
	if !l.isDown() {
		return noNews, nil
	}
	l.outages[len(l.outages)-1].To = now
	l.ramp, l.pause = min(rampStart, l.total), 0
	return cameUp, l.save()
}

// condemn takes the line to be down, if it still looks like it.
func (l *line) condemn(now time.Time) (news, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, down := l.judge(now)
	if !down || l.isDown() {
		return noNews, nil
	}
	l.outages = append(l.outages, outage{From: since})
	l.outages = l.outages[max(len(l.outages)-maxOutages, 0):]
	l.probe, l.pause = now.Add(probeFirst), probeFirst
	return wentDown, l.save()
}

// ask says whether somebody should call around, and who fails; one does at a time, and not all the time.
// answered ends it.
func (l *line) ask(now time.Time) (failing []relay.Domain, spoken int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking || now.Sub(l.asked) < probeFirst {
		return nil, 0, false
	}
	l.asking, l.asked = true, now
	for domain := range l.failing {
		failing = append(failing, domain)
	}
	return failing, l.spoken, true
}

// answered ends an ask: somebody greeted us, or nobody did and no remote has spoken meanwhile.
func (l *line) answered(reached bool, spoken int, now time.Time) (news, error) {
	l.mu.Lock()
	l.asking = false
	if reached {
		defer l.mu.Unlock()
		return l.works(now)
	}
	still := l.spoken == spoken
	l.mu.Unlock()
	if !still {
		return noNews, nil
	}
	return l.condemn(now)
}

// judge says whether those that fail are enough, and since when the last of them have.
func (l *line) judge(now time.Time) (since time.Time, down bool) {
	since = now
	proven, dns := 0, 0
	for domain, f := range l.failing {
		if now.Sub(f.last) > lineWindow {
			delete(l.failing, domain)
			continue
		}
		if f.dns {
			dns++
		}
		if l.proven == nil || l.proven(domain) {
			proven++
		}
		if f.first.Before(since) {
			since = f.first
		}
	}
	if since.Before(now.Add(-lineWindow)) {
		since = now.Add(-lineWindow) // some may have been dead long before
	}
	return since, len(l.failing) >= lineDomains && (proven >= lineProven || dns >= lineDomains)
}

// save writes the outages. Callers hold mu; it happens twice an outage.
func (l *line) save() error {
	if l.file == "" {
		return nil
	}
	text, err := json.Marshal(l.outages)
	if err != nil {
		return err
	}
	tmp := l.file + ".tmp"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, l.file)
}

// hearLine: a word of any remote shows that the line works; our own 4.4.1 and 4.4.3 are those of a
// connection and of a DNS that failed (RFC 3463 §3.5).
func hearLine(results []relay.Result) (spoke, dns, bad bool) {
	for _, res := range results {
		switch {
		case res.Outcome == relay.Delivered || res.Host != "":
			return true, false, false
		case res.Outcome != relay.Deferred:
		case res.Reply.Status == relay.Status{4, 4, 1}:
			bad = true
		case res.Reply.Status == relay.Status{4, 4, 3}:
			bad, dns = true, true
		}
	}
	return false, dns, bad
}

// Lost is how much of the time from born to now our line was down, which counts for no letter's age. It
// does not wait.
func (d *Drain) Lost(born, now time.Time) time.Duration { return d.line.lost(born, now) }

// LineDown is since when our own line has been down; zero while it is up.
func (d *Drain) LineDown() time.Time { return d.line.downSince() }

// askAround finds out by others than those that fail whether the line works. Three dead partners of an
// office that writes to few look like a dead line; and while it is down, the letters that wait may all be
// for the dead.
func (d *Drain) askAround(ctx context.Context) {
	if d.Reach == nil {
		return
	}
	failing, spoken, ok := d.line.ask(time.Now())
	if !ok {
		return
	}
	d.workers.Go(func() {
		reached := d.Reach(ctx, failing)
		if ctx.Err() != nil {
			return // we are stopping: that proves nothing
		}
		d.tellLine(d.line.answered(reached, spoken, time.Now()))
		d.free()
	})
}
