package mx

import "time"

// Timeouts are how long we wait, phase by phase. The zero value of a field means its default,
// which is what RFC 5321 §4.5.3.2 asks for where it says anything.
type Timeouts struct {
	Connect   time.Duration // 30 s: until the connection stands
	Greeting  time.Duration // 5 min: the 220
	EHLO      time.Duration // 5 min: EHLO, HELO and STARTTLS
	Handshake time.Duration // 1 min: the TLS handshake as a whole
	MAIL      time.Duration // 5 min: MAIL and RSET
	RCPT      time.Duration // 5 min: each RCPT
	DATA      time.Duration // 2 min: the 354
	Block     time.Duration // 3 min: the remote takes the next piece of the body
	End       time.Duration // 10 min: the reply to the final dot
	QUIT      time.Duration // 5 s: the 221, which changes nothing
	Total     time.Duration // 30 min: the attempt as a whole, bodies not counted
	Idle      time.Duration // 5 s: an open connection waits for the next letter; below zero: never
	MinRate   int64         // 4096 octets/s: a body may take Block + size/MinRate
}

// withDefaults fills in what is zero.
func (t Timeouts) withDefaults() Timeouts {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Connect, 30 * time.Second},
		{&t.Greeting, 5 * time.Minute},
		{&t.EHLO, 5 * time.Minute},
		{&t.Handshake, time.Minute},
		{&t.MAIL, 5 * time.Minute},
		{&t.RCPT, 5 * time.Minute},
		{&t.DATA, 2 * time.Minute},
		{&t.Block, 3 * time.Minute},
		{&t.End, 10 * time.Minute},
		{&t.QUIT, 5 * time.Second},
		{&t.Total, 30 * time.Minute},
		{&t.Idle, 5 * time.Second},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if t.MinRate <= 0 {
		t.MinRate = 4096
	}
	return t
}

// body is how long a body of size octets may take on the wire: a remote that takes an octet
// per Block would otherwise hold a worker for years.
func (t Timeouts) body(size int64) time.Duration {
	return t.Block + time.Duration(size/t.MinRate)*time.Second
}

// reply is how long the reply to a command of phase p may take.
func (t Timeouts) reply(p phase) time.Duration {
	switch p {
	case phaseGreeting:
		return t.Greeting
	case phaseEHLO, phaseHELO, phaseSTARTTLS:
		return t.EHLO
	case phaseRCPT:
		return t.RCPT
	case phaseDATA:
		return t.DATA
	case phaseBody, phaseEnd:
		return t.End
	case phaseQUIT:
		return t.QUIT
	}
	return t.MAIL
}
