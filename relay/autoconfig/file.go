package autoconfig

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"relayd/relay"
)

// Paths are where Thunderbird, K-9, Evolution and others look for the file, at the host
// autoconfig.DOMAIN or at DOMAIN itself
// (https://wiki.mozilla.org/Thunderbird:Autoconfiguration).
var Paths = [2]string{"/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"}

// document is the file
// (https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat).
type document struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Version  string   `xml:"version,attr"`
	Provider provider `xml:"emailProvider"`
}

type provider struct {
	ID       string      `xml:"id,attr"`
	Domains  []string    `xml:"domain"`
	Name     string      `xml:"displayName"`
	Short    string      `xml:"displayShortName"`
	Incoming []xmlServer `xml:"incomingServer"`
	Outgoing []xmlServer `xml:"outgoingServer"`
}

// xmlServer is one server. "password-cleartext" is a password as it is: under TLS here, always.
type xmlServer struct {
	Type           string `xml:"type,attr"`
	Hostname       string `xml:"hostname"`
	Port           int    `xml:"port"`
	SocketType     string `xml:"socketType"`
	Username       string `xml:"username"`
	Authentication string `xml:"authentication"`
}

// XML is the autoconfig file. Its user name is the whole address, whatever the person typed.
func (s Settings) XML() []byte {
	p := provider{ID: string(s.Hostname), Name: string(s.Hostname), Short: string(s.Hostname)}
	for _, d := range s.Domains {
		p.Domains = append(p.Domains, string(d))
	}
	if len(s.Domains) == 1 {
		p.ID, p.Name, p.Short = p.Domains[0], "Mail of "+p.Domains[0], p.Domains[0]
	}
	for _, server := range s.Incoming {
		p.Incoming = append(p.Incoming, server.xml("pop3"))
	}
	for _, server := range s.Outgoing {
		p.Outgoing = append(p.Outgoing, server.xml("smtp"))
	}
	out, err := xml.MarshalIndent(document{Version: "1.1", Provider: p}, "", "  ")
	if err != nil {
		panic(err) // of strings and numbers
	}
	return append([]byte(xml.Header), append(out, '\n')...)
}

func (s Server) xml(kind string) xmlServer {
	socket := "STARTTLS"
	if s.TLS == Implicit {
		socket = "SSL"
	}
	return xmlServer{kind, s.Host, s.Port, socket, "%EMAILADDRESS%", "password-cleartext"}
}

// Handler serves the file at Paths; current is asked each time and names all domains of ours. A
// program that says for which address it asks, or at which autoconfig.DOMAIN, gets that domain
// alone, or 404 for an address that is not ours.
func Handler(current func() Settings) http.Handler {
	mux := http.NewServeMux()
	for _, path := range Paths {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s := current()
			domains, ok := meant(r, s.Domains)
			if !ok || len(s.Incoming)+len(s.Outgoing) == 0 {
				http.NotFound(w, r)
				return
			}
			s.Domains = domains
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			w.Write(s.XML())
		})
	}
	return mux
}

// meant chooses the domains a request is about.
func meant(r *http.Request, ours []relay.Domain) (domains []relay.Domain, ok bool) {
	if text := r.URL.Query().Get("emailaddress"); text != "" {
		_, name, _ := strings.Cut(text, "@")
		d, err := relay.ParseDomain(name)
		return []relay.Domain{d}, err == nil && slices.Contains(ours, d)
	}
	host, _, _ := strings.Cut(strings.ToLower(r.Host), ":")
	if d := relay.Domain(strings.TrimPrefix(host, "autoconfig.")); slices.Contains(ours, d) {
		return []relay.Domain{d}, true
	}
	return ours, len(ours) > 0
}
