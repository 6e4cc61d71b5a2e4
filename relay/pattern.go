package relay

import "strings"

// MatchText compares a lower-case pattern with s, whose case does not count. With a * (any
// characters) or a ? (any one character) the pattern must match the whole of s; without, it must be
// s or, where within says so, occur in it.
func MatchText(pattern, s string, within bool) bool {
	s = strings.ToLower(s)
	switch {
	case strings.ContainsAny(pattern, "*?"):
		return glob(pattern, s)
	case within:
		return strings.Contains(s, pattern)
	}
	return s == pattern
}

// glob matches * and ? and nothing else: brackets are ordinary in address literals. It goes back
// to the latest * alone, so that its work is bounded by the product of the lengths.
func glob(pattern, s string) bool {
	p, i, star, from := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
