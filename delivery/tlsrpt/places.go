package tlsrpt

import (
	"net/url"
	"strings"

	"relayd/relay"
)

// maxPlaces bounds to how many places one report goes.
const maxPlaces = 4

// place is where a domain wants its reports: an address, or an https URL.
type place struct {
	text string // as the record has it
	to   relay.Address
	url  *url.URL
}

// parsePlaces reads the TXT records of _smtp._tls (RFC 8460 §3). Records of another kind are passed over;
// none or two of this kind mean that the domain wants no reports. So does one without a place of a kind
// that we know.
func parsePlaces(records []string) (places []place) {
	found := ""
	n := 0
	for _, r := range records {
		if rest, ours := strings.CutPrefix(r, "v=TLSRPTv1"); ours && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";") {
			n++
			found = rest
		}
	}
	if n != 1 {
		return nil
	}
	for field := range strings.SplitSeq(found, ";") {
		name, list, _ := strings.Cut(field, "=")
		if strings.TrimSpace(name) != "rua" {
			continue
		}
		for text := range strings.SplitSeq(list, ",") {
			if p, ok := parsePlace(strings.TrimSpace(text)); ok && len(places) < maxPlaces {
				places = append(places, p)
			}
		}
		break
	}
	return places
}

func parsePlace(text string) (place, bool) {
	u, err := url.Parse(text)
	if err != nil {
		return place{}, false
	}
	switch u.Scheme {
	case "mailto":
		address, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return place{}, false
		}
		to, err := relay.ParseAddress(address, true)
		return place{text: text, to: to}, err == nil && to.Domain != ""
	case "https":
		return place{text: text, url: u}, u.Hostname() != "" && u.User == nil
	}
	return place{}, false
}
