package relaytest

import "strings"

// Letter is a sample letter: CRLF line ends, dots unstuffed.
type Letter struct {
	Name string
	Body []byte
}

// Letters returns the letters that mail servers trip over. All of them are legal to carry as they
// are, except that those with 8-bit octets want 8BITMIME and the last, with UTF-8 in its headers,
// SMTPUTF8. One whose text lacks the final CRLF is given one by SMTP, which has no other way to
// end a line.
func Letters() []Letter {
	const head = "From: ann@office.example\r\nTo: bob@partner.example\r\nSubject: sample\r\n" +
		"Date: Sat, 21 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@office.example>\r\n"
	line := func(n int) string { return strings.Repeat("x", n) }
	samples := []struct{ name, body string }{
		{"plain", head + "\r\nHello Bob,\r\n\r\nall is well.\r\n"},
		{"8-bit", head + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n" +
			"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe\r\n"},
		{"utf-8 text", head + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
			"Content-Transfer-Encoding: 8bit\r\n\r\nGrüße, 日本\r\n"},
		{"line of 998", head + "\r\n" + line(998) + "\r\n"},
		{"line of 1000", head + "\r\n" + line(1000) + "\r\nnext\r\n"},
		{"line of a million", head + "\r\n" + line(1_000_000) + "\r\nnext\r\n"},
		{"lone dots", head + "\r\n.\r\n..\r\n.\r\n"},
		{"leading dots", head + "\r\n.one\r\n..two\r\n...three\r\nfour.\r\n"},
		{"dot after long line", head + "\r\n" + line(65_534) + "\r\n.\r\n"},
		{"ends in dot", head + "\r\n."},
		{"empty body", head + "\r\n"},
		{"header only", head},
		{"nothing", ""},
		{"one empty line", "\r\n"},
		{"no header", "just text\r\nwithout any colon\r\n"},
		{"no final newline", head + "\r\nthe end"},
		{"blank lines at the end", head + "\r\nthe end\r\n\r\n\r\n\r\n"},
		{"folded headers", head + "X-Folded: one\r\n two\r\n\tthree\r\nReferences: <a@x>\r\n <b@x>\r\n\r\ntext\r\n"},
		{"long header", head + "X-Long: " + line(5000) + "\r\n\r\ntext\r\n"},
		{"many headers", head + strings.Repeat("X-Many: 1\r\n", 2000) + "\r\ntext\r\n"},
		{"mime", head + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n" +
			"--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/octet-stream\r\n" +
			"Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b--\r\n"},
		{"from lines", head + "\r\nFrom here on\r\n>From there\r\n"},
		{"tabs and blanks", head + "\r\n\t tab\r\ntrailing blanks   \r\n   \r\n"},
		{"utf-8 headers", "From: ann@office.example\r\nTo: bob@partner.example\r\nSubject: Grüße 日本\r\n\r\ntext\r\n"},
	}
	letters := make([]Letter, len(samples))
	for i, s := range samples {
		letters[i] = Letter{Name: s.name, Body: []byte(s.body)}
	}
	return letters
}
