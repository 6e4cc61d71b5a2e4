package dmarc

import (
	"encoding/xml"
	"io"
	"time"
)

// namespace is that of the reports we write (RFC 9990 §6.1). Those we read may have another or none.
const namespace = "urn:ietf:params:xml:ns:dmarc-2.0"

// Report is one aggregate report (RFC 9990 §3.1.1 and appendix A).
type Report struct {
	XMLName   xml.Name  `xml:"feedback" json:"-"`
	Version   string    `xml:"version,omitempty" json:"version,omitempty"`
	Metadata  Metadata  `xml:"report_metadata" json:"metadata"`
	Published Published `xml:"policy_published" json:"published"`
	Records   []Record  `xml:"record" json:"records"`
}

// Metadata says who reports, and of what time.
type Metadata struct {
	OrgName   string `xml:"org_name" json:"org_name"`
	Email     string `xml:"email" json:"email"`
	Contact   string `xml:"extra_contact_info,omitempty" json:"contact,omitempty"`
	ReportID  string `xml:"report_id" json:"report_id"`
	Begin     int64  `xml:"date_range>begin" json:"begin"` // seconds since 1970, as is End, the last second
	End       int64  `xml:"date_range>end" json:"end"`
	Error     string `xml:"error,omitempty" json:"error,omitempty"`
	Generator string `xml:"generator,omitempty" json:"generator,omitempty"`
}

// Published is the policy that was found, its defaults filled in.
type Published struct {
	Domain    string `xml:"domain" json:"domain"`
	Discovery string `xml:"discovery_method,omitempty" json:"discovery,omitempty"` // "treewalk", "psl"
	P         string `xml:"p" json:"p"`
	SP        string `xml:"sp,omitempty" json:"sp,omitempty"`
	NP        string `xml:"np,omitempty" json:"np,omitempty"`
	FO        string `xml:"fo,omitempty" json:"fo,omitempty"`
	ADKIM     string `xml:"adkim,omitempty" json:"adkim,omitempty"` // "r", "s"
	ASPF      string `xml:"aspf,omitempty" json:"aspf,omitempty"`
	Testing   string `xml:"testing,omitempty" json:"testing,omitempty"` // "y", "n"
}

// Record is how many letters there were of one kind: from one address, with the same results.
type Record struct {
	Source       string     `xml:"row>source_ip" json:"source"`
	Count        int        `xml:"row>count" json:"count"`
	Disposition  string     `xml:"row>policy_evaluated>disposition" json:"disposition"` // "none", "pass", "quarantine", "reject"
	DKIM         string     `xml:"row>policy_evaluated>dkim" json:"dkim"`               // "pass", "fail", as DMARC sees it
	SPF          string     `xml:"row>policy_evaluated>spf" json:"spf"`
	Reasons      []Reason   `xml:"row>policy_evaluated>reason" json:"reasons,omitempty"`
	EnvelopeTo   string     `xml:"identifiers>envelope_to,omitempty" json:"envelope_to,omitempty"`
	EnvelopeFrom string     `xml:"identifiers>envelope_from" json:"envelope_from"` // empty: the null path
	HeaderFrom   string     `xml:"identifiers>header_from" json:"header_from"`
	AuthDKIM     []AuthDKIM `xml:"auth_results>dkim" json:"auth_dkim,omitempty"`
	AuthSPF      []AuthSPF  `xml:"auth_results>spf" json:"auth_spf,omitempty"`
}

// Passes says whether DMARC passed.
func (r Record) Passes() bool { return r.DKIM == "pass" || r.SPF == "pass" }

// Reason is why the domain's wish was not followed (RFC 9990 §3.1.6).
type Reason struct {
	Type    string `xml:"type" json:"type"`
	Comment string `xml:"comment,omitempty" json:"comment,omitempty"`
}

// The types of a Reason that we write.
const (
	LocalPolicy = "local_policy"
	MailingList = "mailing_list"
	TestMode    = "policy_test_mode"
	Other       = "other"
)

// AuthDKIM is what one signature came to.
type AuthDKIM struct {
	Domain   string `xml:"domain" json:"domain"`
	Selector string `xml:"selector" json:"selector"`
	Result   string `xml:"result" json:"result"`
	Human    string `xml:"human_result,omitempty" json:"human,omitempty"`
}

// AuthSPF is what SPF came to for MAIL FROM.
type AuthSPF struct {
	Domain string `xml:"domain" json:"domain"`
	Scope  string `xml:"scope,omitempty" json:"scope,omitempty"`
	Result string `xml:"result" json:"result"`
	Human  string `xml:"human_result,omitempty" json:"human,omitempty"`
}

// Observation is one letter, as a report will count it.
type Observation struct {
	Published Published
	RUA       string // where the domain wants its reports, as its record says
	Record           // Count is not looked at
	// Report says that the letter is an aggregate report itself, and proven to be its author's.
	Report bool
}

// write writes the report as XML.
func (r Report) write(w io.Writer) error {
	r.XMLName, r.Version = xml.Name{}, "1.0"
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", " ")
	if err := e.EncodeElement(r, xml.StartElement{Name: xml.Name{Space: namespace, Local: "feedback"}}); err != nil {
		return err
	}
	return e.Close()
}

// Period is the time the report is about.
func (r Report) Period() (begin, end time.Time) {
	return time.Unix(r.Metadata.Begin, 0).UTC(), time.Unix(r.Metadata.End, 0).UTC()
}
