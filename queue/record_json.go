package queue

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// Listing 20,000 items was mostly encoding/json finding out by reflection, for each record, what
// we ourselves had written. recordReader reads exactly what encode writes: no space, the fields in
// the order of their structs. Anything else it leaves to encoding/json, so that it decides nothing
// by itself; FuzzRecordJSON holds both to the same answer.
type recordReader struct {
	text string
	at   int
	odd  bool // something that is left to encoding/json
}

// decodeLetter reads the JSON part of a record. What it returns shares one copy of it.
func decodeLetter(b []byte) (letterRecord, error) {
	p := recordReader{text: string(b)}
	if rec := p.letter(); !p.odd && p.at == len(p.text) {
		return rec, nil
	}
	var rec letterRecord
	err := json.Unmarshal(b, &rec)
	return rec, err
}

// The names of the fields, in the order of their structs.
var (
	letterFields = []string{
		"id", "from", "rcpts", "ret", "envid", "origin", "accepted", "size", "body_8bit", "utf8", "junk", "auth", "filter", "hold", "via",
		"release", "by", "require_tls", "told", "last", "done",
	}
	rcptFields   = []string{"addr", "mailbox", "orig", "notify", "orcpt", "junk"}
	originFields = []string{"client", "name", "helo", "proto", "tls", "user", "service", "server", "trusted"}
	resultFields = []string{"rcpt", "outcome", "reply", "host", "tls", "way", "dsn", "at"}
	byFields     = []string{"at", "return", "trace"}
	replyFields  = []string{"code", "status", "text"}
)

func (p *recordReader) letter() (rec letterRecord) {
	p.object(letterFields, func(field int) {
		switch letterFields[field] {
		case "id":
			rec.ID = relay.ID(p.string())
		case "from":
			rec.From = p.address()
		case "rcpts":
			rec.Rcpts = array(p, p.recipient)
		case "ret":
			rec.Ret = relay.Ret(p.string())
		case "origin":
			rec.Origin = p.origin()
		case "accepted":
			rec.Accepted = p.time()
		case "size":
			rec.Size = p.integer()
		case "body_8bit":
			rec.Body8Bit = p.boolean()
		case "utf8":
			rec.UTF8 = p.boolean()
		case "junk":
			rec.Junk = p.boolean()
		case "release":
			rec.Release = p.time()
		case "by":
			rec.By = p.deliverBy()
		case "told":
			rec.Told = p.time()
		case "last":
			rec.Last = array(p, p.result)
		case "done":
			rec.Done = array(p, p.result)
		case "envid":
			rec.EnvID = p.string()
		case "auth":
			rec.Auth = p.string()
		case "filter":
			rec.Filter = p.string()
		case "hold":
			rec.Hold = p.string()
		case "via":
			rec.Via = p.string()
		case "require_tls":
			rec.RequireTLS = p.boolean()
		}
	})
	return rec
}

func (p *recordReader) deliverBy() (d relay.DeliverBy) {
	p.object(byFields, func(field int) {
		switch field {
		case 0:
			d.At = p.time()
		case 1:
			d.Return = p.boolean()
		case 2:
			d.Trace = p.boolean()
		}
	})
	return d
}

func (p *recordReader) recipient() (rc relay.Recipient) {
	p.object(rcptFields, func(field int) {
		switch field {
		case 0:
			rc.Addr = p.address()
		case 1:
			rc.Mailbox = p.address()
		case 2:
			rc.Orig = p.string()
		case 3:
			p.check(rc.Notify.UnmarshalText([]byte(p.string())))
		case 4:
			rc.ORcpt = p.string()
		case 5:
			rc.Junk = p.boolean()
		}
	})
	return rc
}

func (p *recordReader) origin() (o relay.Origin) {
	p.object(originFields, func(field int) {
		switch field {
		case 0:
			o.Client = p.addrPort()
		case 7:
			o.Server = p.addrPort()
		case 8:
			o.Trusted = p.boolean()
		default:
			*[]*string{1: &o.Name, 2: &o.Helo, 3: &o.Proto, 4: &o.TLS, 5: &o.User, 6: &o.Service}[field] = p.string()
		}
	})
	return o
}

func (p *recordReader) result() (r relay.Result) {
	p.object(resultFields, func(field int) {
		switch field {
		case 0:
			r.Rcpt = p.address()
		case 1:
			r.Outcome = relay.Outcome(p.string())
		case 2:
			r.Reply = p.reply()
		case 3:
			r.Host = p.string()
		case 4:
			r.TLS = p.string()
		case 5:
			r.Way = p.string()
		case 6:
			r.DSN = p.boolean()
		case 7:
			r.At = p.time()
		}
	})
	return r
}

func (p *recordReader) reply() (r relay.Reply) {
	p.object(replyFields, func(field int) {
		switch field {
		case 0:
			r.Code = int(p.integer())
		case 1:
			p.check(r.Status.UnmarshalText([]byte(p.string())))
		case 2:
			r.Text = p.string()
		}
	})
	return r
}

// check leaves to encoding/json what could not be read.
func (p *recordReader) check(err error) { p.odd = p.odd || err != nil }

// eat goes past c if it is next.
func (p *recordReader) eat(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *recordReader) expect(c byte) { p.odd = !p.eat(c) || p.odd }

// object reads an object whose fields are some of names, in their order.
func (p *recordReader) object(names []string, value func(field int)) {
	p.expect('{')
	if p.eat('}') {
		return
	}
	for next := 0; !p.odd; {
		name := p.string()
		for next < len(names) && names[next] != name {
			next++
		}
		if p.expect(':'); next == len(names) || p.odd {
			p.odd = true
			return
		}
		value(next)
		next++
		if p.eat('}') {
			return
		}
		p.expect(',')
	}
}

func array[T any](p *recordReader, value func() T) (all []T) {
	p.expect('[')
	if p.eat(']') {
		return []T{}
	}
	for !p.odd {
		all = append(all, value())
		if p.eat(']') {
			return all
		}
		p.expect(',')
	}
	return nil
}

// string reads a string. One with escapes or beyond ASCII goes through encoding/json alone.
func (p *recordReader) string() string {
	p.expect('"')
	start, plain := p.at, true
	for p.at < len(p.text) && !p.odd {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			if plain {
				return p.text[start : p.at-1]
			}
			var s string
			p.check(json.Unmarshal([]byte(p.text[start-1:p.at]), &s))
			return s
		case c == '\\':
			p.at++
			plain = false
		case c < ' ' || c > '~':
			plain = false
		}
		p.at++
	}
	p.odd = true
	return ""
}

func (p *recordReader) address() (a relay.Address) {
	text := p.string()
	if strings.IndexByte(text, '@') <= 0 { // the null path, <postmaster>, a source route
		p.check(a.UnmarshalText([]byte(text)))
		return a
	}
	a, err := relay.ParseAddress(text, true)
	p.check(err)
	return a
}

func (p *recordReader) addrPort() (a netip.AddrPort) {
	p.check(a.UnmarshalText([]byte(p.string())))
	return a
}

// time reads a time as json does: the quotes belong to it.
func (p *recordReader) time() (t time.Time) {
	start := p.at
	p.string()
	if !p.odd {
		p.check(t.UnmarshalJSON([]byte(p.text[start:p.at])))
	}
	return t
}

func (p *recordReader) boolean() bool {
	for _, word := range []string{"true", "false"} {
		if end := p.at + len(word); end <= len(p.text) && p.text[p.at:end] == word {
			p.at = end
			return word == "true"
		}
	}
	p.odd = true
	return false
}

// integer reads digits: neither a sign, a fraction nor an exponent.
func (p *recordReader) integer() int64 {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	digits := p.text[start:p.at]
	n, err := strconv.ParseInt(digits, 10, 64)
	p.odd = p.odd || err != nil || len(digits) > 1 && digits[0] == '0'
	return n
}
