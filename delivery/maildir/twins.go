package maildir

import (
	"os"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// separate gives a letter whose name shares the part that should be unique with an older one's a
// name of its own, as Dovecot does: broken programs and careless copies make such names. Without
// it the younger would take over the unique-id of the older when that is removed, and a client
// that has fetched the older would never fetch the younger.
func (d *Drop) separate() {
	first := make(map[string]int, len(d.messages))
	renamed := map[string]bool{}
	for i := range d.messages {
		uid := d.messages[i].UID
		k, taken := first[uid]
		if !taken {
			first[uid] = i
			continue
		}
		younger := i
		if d.isYounger(d.letters[k], d.letters[i]) {
			younger, first[uid] = k, i
		}
		l, m := &d.letters[younger], &d.messages[younger]
		if err := d.rechristen(l); err != nil {
			d.store.log.Warn("two letters share a name", "mailbox", d.box.addr, "uid", uid, "err", err)
			m.UID = digest(l.base)
			continue
		}
		m.UID, renamed[l.sub] = l.uid(), true
	}
	if err := d.flush(renamed); err != nil {
		d.store.log.Warn("cannot flush new names", "mailbox", d.box.addr, "err", err)
	}
}

// isYounger says whether a came after b: what nobody has opened yet did, else what was written
// later.
func (d *Drop) isYounger(a, b letter) bool {
	if a.sub != b.sub {
		return a.sub == "new"
	}
	one, err := os.Lstat(d.path(a))
	if err != nil {
		return false
	}
	other, err := os.Lstat(d.path(b))
	return err == nil && one.ModTime().After(other.ModTime())
}

// rechristen renames a letter on disk. Its sizes and flags stay in its name.
func (d *Drop) rechristen(l *letter) error {
	_, fields, sized := strings.Cut(l.base, ",")
	to := *l
	to.base = strconv.FormatInt(l.time, 10) + ".C" + string(relay.NewID(time.Now())) + "." + d.store.host
	if sized {
		to.base += "," + fields
	}
	if err := renameNew(d.path(*l), d.path(to)); err != nil {
		return err
	}
	*l = to
	return nil
}
