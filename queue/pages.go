package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The pages of a bbolt file (format version 2, unchanged since 2014), read without bbolt: it trusts
// what it reads, follows a damaged page number to a fault in a goroutine of its own, and that ends
// the program. Here every number is checked before it is used, so that damage is an error; and
// what passes here passes the check bbolt makes when it opens the file.
//
//	page:    id u64, flags u16, count u16, overflow u32, then count elements of 16 octets
//	leaf:    flags u32, key at u32 (from the element on), key length u32, value length u32
//	branch:  key at u32, key length u32, page u64
//	bucket:  a leaf value: root page u64 (0: the page follows inline), sequence u64
//	meta:    magic u32, version u32, page size u32, flags u32, root bucket, free list page u64,
//	         high water mark u64, transaction u64, FNV-64a of all before
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	pageHeader   = 16
	metaLen      = 64
	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10
	leafBucket   = 0x01
	noFreelist   = ^uint64(0)
	maxDepth     = 32 // of a tree: two keys a page would give four thousand million items
)

var order = binary.NativeEndian

// errPage is what every check here fails with.
var errPage = errors.New("a page is damaged")

func badPage(id uint64, what string) error { return fmt.Errorf("%w: %d: %s", errPage, id, what) }

// boltFile is a bbolt file being read.
type boltFile struct {
	f        io.ReaderAt
	pageSize int64
	seen     pageSet  // pages met; a second meeting is damage, and might never end
	spare    [][]byte // buffers of pages that are done with

	root, high, freelist uint64
	oneMeta              bool // one of the two meta pages is damaged: the newest transaction may be lost
}

// leafFunc gets the elements of a tree in the order of their keys, valid during the call.
type leafFunc func(flags uint32, key, value []byte) error

// scanFile reads every page of the database that is in use and hands each record of each bucket
// to what buckets has under its name. begin, if not nil, is told the name and the sequence of each
// bucket before its records. It returns the sequence of each bucket.
func scanFile(f io.ReaderAt, buckets map[string]leafFunc, begin func(name string, sequence uint64)) (b *boltFile, sequence map[string]uint64, err error) {
	b = &boltFile{f: f}
	if err := b.readMeta(); err != nil {
		return b, nil, err
	}
	sequence = map[string]uint64{}
	_, err = b.walk(b.root, nil, nil, 0, func(flags uint32, name, value []byte) error {
		each := buckets[string(name)]
		if flags&leafBucket == 0 || each == nil || len(value) < 16 {
			return fmt.Errorf("%w: %q is not a bucket of ours", errPage, name)
		}
		sequence[string(name)] = order.Uint64(value[8:])
		if begin != nil {
			begin(string(name), order.Uint64(value[8:]))
		}
		return b.bucket(value, each)
	})
	if err != nil {
		return b, nil, err
	}
	return b, sequence, b.readFreelist()
}

func (b *boltFile) bucket(value []byte, each leafFunc) error {
	inner := func(flags uint32, k, v []byte) error {
		if flags != 0 {
			return fmt.Errorf("%w: %q is a bucket", errPage, k)
		}
		return each(flags, k, v)
	}
	root := order.Uint64(value)
	if root != 0 {
		_, err := b.walk(root, nil, nil, 0, inner)
		return err
	}
	page := value[16:]
	if len(page) < pageHeader || order.Uint16(page[8:]) != pageLeaf {
		return badPage(0, "an inline bucket is no leaf")
	}
	_, err := b.leaf(0, page, nil, nil, inner)
	return err
}

// readMeta chooses the meta page as bbolt does: the newer of those that are whole.
func (b *boltFile) readMeta() error {
	metas := make([][]byte, 0, 2)
	if m := b.metaAt(0); m != nil {
		metas = append(metas, m)
		b.pageSize = int64(order.Uint32(m[8:]))
	}
	for size := int64(1 << 10); size <= 1<<24; size <<= 1 {
		if b.pageSize != 0 && b.pageSize != size {
			continue
		}
		if m := b.metaAt(size); m != nil && int64(order.Uint32(m[8:])) == size {
			metas = append(metas, m)
			b.pageSize = size
			break
		}
	}
	if len(metas) == 0 {
		return fmt.Errorf("%w: it does not begin as a bbolt file", errPage)
	}
	m := metas[0]
	if len(metas) == 2 && order.Uint64(metas[1][48:]) > order.Uint64(m[48:]) {
		m = metas[1]
	}
	b.oneMeta = len(metas) < 2
	b.root, b.freelist, b.high = order.Uint64(m[16:]), order.Uint64(m[32:]), order.Uint64(m[40:])
	return nil
}

func (b *boltFile) metaAt(at int64) []byte {
	m := make([]byte, metaLen)
	if _, err := b.f.ReadAt(m, at+pageHeader); err != nil {
		return nil
	}
	sum := fnv.New64a()
	sum.Write(m[:56])
	size := order.Uint32(m[8:])
	if order.Uint32(m) != boltMagic || order.Uint32(m[4:]) != boltVersion || order.Uint64(m[56:]) != sum.Sum64() ||
		size < 1<<10 || size > 1<<24 || size&(size-1) != 0 {
		return nil
	}
	return m
}

// page reads a page with its overflow, once.
func (b *boltFile) page(id uint64) ([]byte, error) {
	if id < 2 || id >= b.high {
		return nil, badPage(id, "no such page")
	}
	p := b.buffer()
	if _, err := b.f.ReadAt(p, int64(id)*b.pageSize); err != nil {
		return nil, badPage(id, err.Error())
	}
	more := uint64(order.Uint32(p[12:]))
	if order.Uint64(p) != id || more >= b.high-id {
		return nil, badPage(id, "not the page it should be")
	}
	if more > 0 {
		rest := io.NewSectionReader(b.f, (int64(id)+1)*b.pageSize, int64(more)*b.pageSize)
		var err error
		p, err = io.ReadAll(io.MultiReader(bytes.NewReader(p), rest))
		if err != nil || int64(len(p)) != int64(more+1)*b.pageSize {
			return nil, badPage(id, "cut short")
		}
	}
	for i := id; i <= id+more; i++ {
		if !b.seen.add(i) {
			return nil, badPage(i, "used twice")
		}
	}
	return p, nil
}

func (b *boltFile) buffer() []byte {
	if n := len(b.spare); n > 0 {
		p := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return p
	}
	return make([]byte, b.pageSize)
}

// walk hands over the elements below a page, whose keys must lie in [low, high), rising; nil is no
// bound. It returns the last key.
func (b *boltFile) walk(id uint64, low, high []byte, depth int, each leafFunc) ([]byte, error) {
	p, err := b.page(id)
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, badPage(id, "too deep")
	}
	switch order.Uint16(p[8:]) {
	case pageLeaf:
		last, err := b.leaf(id, p, low, high, each)
		last = bytes.Clone(last)
		if int64(len(p)) == b.pageSize {
			b.spare = append(b.spare, p)
		}
		return last, err
	case pageBranch:
		return b.branch(id, p, low, high, depth, each)
	}
	return nil, badPage(id, "neither branch nor leaf")
}

func (b *boltFile) leaf(id uint64, p, low, high []byte, each leafFunc) ([]byte, error) {
	last := low
	for i := range int(order.Uint16(p[10:])) {
		at := pageHeader + 16*i
		if at+16 > len(p) {
			return nil, badPage(id, "too many elements")
		}
		from := int64(at) + int64(order.Uint32(p[at+4:]))
		mid := from + int64(order.Uint32(p[at+8:]))
		end := mid + int64(order.Uint32(p[at+12:]))
		if end > int64(len(p)) {
			return nil, badPage(id, "an element beyond the end")
		}
		key := p[from:mid:mid]
		if !inOrder(key, last, high, i > 0) {
			return nil, badPage(id, "keys out of order")
		}
		last = key
		if err := each(order.Uint32(p[at:]), key, p[mid:end:end]); err != nil {
			return nil, err
		}
	}
	return last, nil
}

func (b *boltFile) branch(id uint64, p, low, high []byte, depth int, each leafFunc) ([]byte, error) {
	n := int(order.Uint16(p[10:]))
	if n == 0 || pageHeader+16*n > len(p) {
		return nil, badPage(id, "too few or too many elements")
	}
	key := func(i int) []byte {
		at := pageHeader + 16*i
		from := int64(at) + int64(order.Uint32(p[at:]))
		end := from + int64(order.Uint32(p[at+4:]))
		if end > int64(len(p)) {
			return nil
		}
		return p[from:end]
	}
	last := low
	for i := range n {
		k, next := key(i), high
		if i+1 < n {
			next = key(i + 1)
		}
		if k == nil || i+1 < n && next == nil || !inOrder(k, last, high, i > 0) {
			return nil, badPage(id, "keys out of order")
		}
		var err error
		if last, err = b.walk(order.Uint64(p[pageHeader+16*i+8:]), k, next, depth+1, each); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// inOrder says whether key may follow last, which it must exceed if strict, below high.
func inOrder(key, last, high []byte, strict bool) bool {
	switch c := bytes.Compare(key, last); {
	case len(key) == 0 || c < 0 || c == 0 && strict:
		return false
	}
	return high == nil || bytes.Compare(key, high) < 0
}

// readFreelist looks at the free list, which only another program (the bbolt command) can have
// left: a page on it that is also in use would be overwritten.
func (b *boltFile) readFreelist() error {
	if b.freelist == noFreelist {
		return nil
	}
	p, err := b.page(b.freelist)
	if err != nil {
		return err
	}
	n, list := int(order.Uint16(p[10:])), p[pageHeader:]
	if n == 0xffff && len(list) >= 8 {
		n, list = int(min(order.Uint64(list), 1<<40)), list[8:]
	}
	if order.Uint16(p[8:]) != pageFreelist || n > len(list)/8 {
		return badPage(b.freelist, "not a free list")
	}
	for i := range n {
		if id := order.Uint64(list[8*i:]); id < 2 || id >= b.high || b.seen.has(id) {
			return badPage(id, "free and in use")
		}
	}
	return nil
}

// pageSet is a set of page numbers, a bit for each up to the highest in it.
type pageSet []uint64

func (s pageSet) has(id uint64) bool {
	return id/64 < uint64(len(s)) && s[id/64]&(1<<(id%64)) != 0
}

// add enters a page that the file was seen to have; false when it is in already.
func (s *pageSet) add(id uint64) bool {
	if s.has(id) {
		return false
	}
	if need := int(id/64) + 1; need > len(*s) {
		*s = append(*s, make([]uint64, need-len(*s))...)
	}
	(*s)[id/64] |= 1 << (id % 64)
	return true
}
