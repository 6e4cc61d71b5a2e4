package smtpd_test

import (
	"context"
	"slices"
	"testing"

	"relayd/relay"
)

// seer is an office whose transactions like to know of recipients before their turn.
type seer struct {
	office
	heard []string
}

func (s *seer) Begin(ctx context.Context, o relay.Origin, from relay.Address, p relay.MailParams) (relay.Transaction, error) {
	tx, err := s.office.Begin(ctx, o, from, p)
	return &seeing{tx, s}, err
}

type seeing struct {
	relay.Transaction
	seer *seer
}

func (t *seeing) Expect(_ context.Context, to relay.Address) {
	t.seer.heard = append(t.seer.heard, "expect "+to.Local)
}

func (t *seeing) Rcpt(ctx context.Context, to relay.Address, p relay.RcptParams) error {
	t.seer.heard = append(t.seer.heard, "rcpt "+to.Local)
	return t.Transaction.Rcpt(ctx, to, p)
}

// TestPipelinedRecipientsAreKnownAhead: each once, before the first has its turn, and only those
// of this letter that have come in whole.
func TestPipelinedRecipientsAreKnownAhead(t *testing.T) {
	t.Parallel()
	s := &seer{}
	conf := config(&s.office)
	conf.Accept = s
	_, addr := listen(t, conf)
	c := dial(t, addr)
	c.want("220 *")
	c.do("EHLO c.example", "250*")
	c.do("MAIL FROM:<x@y.example>", "250 *")
	c.send("RCPT TO:<ann@office.example>\r\nRCPT TO:<b ad>\r\nrcpt to:<bob@office.example>\r\nRCPT TO:<nobody@office.example>\r\n" +
		"NOOP\r\nRCPT TO:<postmaster@office.example>\r\nRCPT TO:<ann@off")
	c.want("250 *", "501 *", "250 *", "550 *", "250 *", "250 *")
	c.send("ice.example>\r\nRSET\r\nQUIT\r\n")
	c.want("250 *", "250 *", "221 *", "EOF")
	want := []string{"expect ann", "expect bob", "expect nobody", "rcpt ann", "rcpt bob", "rcpt nobody",
		"expect postmaster", "rcpt postmaster", "expect ann", "rcpt ann"}
	if !slices.Equal(s.heard, want) {
		t.Errorf("heard %q\nwant  %q", s.heard, want)
	}
}
