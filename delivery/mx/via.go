package mx

import "relayd/relay"

// ordered is where the operator sends a letter, whatever the routes say (Envelope.Via). A host that a
// route leads to gets the letter as by that route, with its login and its TLS: an order needs no
// password, and opens no way around one. Any other host is met as a stranger's is.
func (c *Client) ordered(via string, d relay.Domain) choice {
	if via == relay.ViaMX {
		return choice{}
	}
	r, err := ParseRoute(string(d), via)
	if err != nil {
		// It was checked when it was given. A letter is not lost for it: the routes know a way.
		c.log.Error("the operator's route cannot be read, the letter goes to the mail hosts", "rcpt", d, "via", via, "err", err)
		return choice{}
	}
	for _, known := range *c.routes.Load() {
		if known.Via == r.Via && c.portOf(&known) == c.portOf(&r) {
			r.TLS, r.User, r.Password = known.TLS, known.User, known.Password
			break
		}
	}
	return choice{via: &r}
}

func (c *Client) portOf(r *Route) int {
	if r.Port == 0 {
		return int(c.port)
	}
	return r.Port
}
