package pop3

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"unicode/utf8"
)

// language is one of those our sentences are written in.
type language uint8

const (
	english language = iota
	german
	french
	spanish
	japanese
	languages
)

// tongues are their tags (RFC 5646) and their names in themselves.
var tongues = [languages]struct{ tag, name string }{
	english: {"en", "English"}, german: {"de", "Deutsch"}, french: {"fr", "Français"}, spanish: {"es", "Español"}, japanese: {"ja", "日本語"},
}

// defaultTag is English for people who did not choose it (RFC 2277 §4.5).
const defaultTag = "i-default"

// lookup finds the language for a basic language range, which it may be more special than: de-AT is
// de (RFC 4647 §3.4). It returns the tag that was found.
func lookup(wanted string) (l language, tag string, ok bool) {
	wanted = strings.ToLower(wanted)
	if wanted == defaultTag {
		return english, defaultTag, true
	}
	for ; wanted != ""; wanted = wanted[:max(0, strings.LastIndexByte(wanted, '-'))] {
		for l, t := range tongues {
			if t.tag == wanted {
				return language(l), t.tag, true
			}
		}
	}
	return 0, "", false
}

// Languages are the tags of the languages that Config.Language may name.
func Languages() (tags []string) {
	for _, t := range tongues {
		tags = append(tags, t.tag)
	}
	return tags
}

// isRange checks the syntax of a basic language range (RFC 4647 §2.1).
func isRange(s string) bool {
	for i, part := range strings.Split(s, "-") {
		for _, c := range []byte(part) {
			letter := c|0x20 >= 'a' && c|0x20 <= 'z'
			if !letter && (i == 0 || c < '0' || c > '9') {
				return false
			}
		}
		if len(part) < 1 || len(part) > 8 {
			return false
		}
	}
	return true
}

// lang implements LANG (RFC 6856 §3): it lists the languages, or changes to one for all sentences
// from its own reply on. A star stands for the one the operator prefers.
func (s *session) lang(_ context.Context, arg string) {
	if arg == "" {
		s.ok(textLanguages)
		for _, t := range tongues {
			s.writeString(t.tag + " " + t.name + "\r\n")
		}
		s.writeString(defaultTag + " Default language\r\n.\r\n")
		return
	}
	tongue, tag, ok := s.server.tongue, tongues[s.server.tongue].tag, true
	if arg != "*" {
		if !isRange(arg) {
			s.wrong(none, textLangSyntax)
			return
		}
		tongue, tag, ok = lookup(arg)
	}
	if !ok {
		s.err(none, textNoLanguage)
		return
	}
	s.tongue, s.international = tongue, s.international || tongue != english
	s.reply("+OK "+tag+" ", textLanguage)
}

// utf8 implements UTF8 (RFC 6856 §2.1). Sentences may then name people in UTF-8. Messages are the
// same in both modes: the RFC would have us refuse or rewrite one with UTF-8 in its header for a
// client that did not say UTF8, and as hardly any says it, its owner would never get to see it.
func (s *session) utf8(_ context.Context, _ string) {
	s.international = true
	s.ok(textUTF8)
}

// code is a response code (RFC 2449 §8), which programs read where people read the sentence.
type code string

const (
	none       code = ""
	badLogin   code = "[AUTH] "        // RFC 3206 §5: the name, the password or the place is wrong
	temporary  code = "[SYS/TEMP] "    // RFC 3206 §4: trouble of ours that will pass
	permanent  code = "[SYS/PERM] "    // RFC 3206 §4: trouble of ours that somebody has to mend
	inUse      code = "[IN-USE] "      // RFC 2449 §8.1.2
	loginDelay code = "[LOGIN-DELAY] " // RFC 2449 §8.1.1
)

// ok and err send the first line of a reply.
func (s *session) ok(p phrase, args ...any)          { s.reply("+OK ", p, args...) }
func (s *session) err(c code, p phrase, args ...any) { s.reply("-ERR "+string(c), p, args...) }

// reply sends a sentence in the language of the session, within the 512 octets of RFC 1939 §3.
func (s *session) reply(start string, p phrase, args ...any) {
	var line [maxReply]byte
	b := append(line[:0], start...)
	if len(args) == 0 {
		b = append(b, p[s.tongue]...)
	} else {
		b = fmt.Appendf(b, p[s.tongue], args...)
	}
	if !s.international {
		maskUTF8(b)
	}
	s.write(append(shorten(b), '\r', '\n'))
}

const maxReply = 512

// shorten cuts a reply that is too long, between characters.
func shorten(b []byte) []byte {
	const more = " ..."
	if len(b) <= maxReply-2 {
		return b
	}
	n := maxReply - 2 - len(more)
	for !utf8.RuneStart(b[n]) {
		n--
	}
	return append(bytes.Clone(b[:n]), more...)
}

// maskUTF8 hides what a client that knows ASCII alone could not read.
func maskUTF8(b []byte) {
	for i, c := range b {
		if c >= utf8.RuneSelf {
			b[i] = '?'
		}
	}
}
