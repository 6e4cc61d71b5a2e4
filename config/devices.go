package config

import (
	"fmt"
	"net/netip"
	"strings"

	"relayd/relay"
)

// ListenDevice is what a device listener is made with; a change of it needs a restart.
type ListenDevice struct {
	Service     string // "device", "device2", ... in the order of the file
	Addresses   []string
	ImplicitTLS bool
}

// Device is one [[listen_device]]: what machines that connect there may do. They are served with
// more patience than others; see smtpd.Profile.
type Device struct {
	Service       string         // as in Listen.Devices
	Networks      []netip.Prefix // who may connect; never empty
	TLS           string         // DeviceTLSOff, DeviceStartTLS or DeviceImplicitTLS
	Auth          string         // AuthOff, AuthOptional or AuthRequired
	PlaintextAuth bool           // logins without TLS
	Sender        relay.Address  // in the place of MAIL FROM and From; null: theirs stay
	// Anybody, or Recipients in the form of NormalizeLocal, of which the local part "*" stands for
	// everybody of a domain; without any, the addresses of our own domains.
	Anybody     bool
	Recipients  []relay.Address
	MessageSize int64 // octets; 0: that of [limits]
	RateLimit   int   // letters an hour from one address
}

// The values of Device.TLS and Device.Auth.
const (
	DeviceTLSOff      = "off"
	DeviceStartTLS    = "starttls"
	DeviceImplicitTLS = "implicit"

	AuthOff      = "off"
	AuthOptional = "optional"
	AuthRequired = "required"
)

// defaultRate is what a busy copier does not reach, and one that has gone mad does at once.
const defaultRate = 500

// devices reads the [[listen_device]] tables in their order; taken are the listeners there are
// already.
func (r *reader) devices(s section, c *Config, taken []listener) {
	tables(s, "listen_device", c, func(t section, c *Config) { taken = r.device(t, c, taken) })
}

// device reads one of them. Without a Config it only makes the names known.
func (r *reader) device(s section, c *Config, taken []listener) []listener {
	d := Device{Service: "device", TLS: DeviceStartTLS, Auth: AuthOff, RateLimit: defaultRate}
	if c != nil && len(c.Devices) > 0 {
		d.Service = fmt.Sprintf("device%d", len(c.Devices)+1)
	}
	addresses, hasAddress := many(s, "address", readListen)
	networks, hasNetworks := many(s, "networks", readNetwork)
	one(s, "tls", &d.TLS, readWord(DeviceTLSOff, DeviceStartTLS, DeviceImplicitTLS))
	auth, _ := one(s, "auth", &d.Auth, readWord(AuthOff, AuthOptional, AuthRequired))
	one(s, "plaintext_auth", &d.PlaintextAuth, readBool)
	from, hasSender := one(s, "sender", &d.Sender, readDeviceSender)
	recipients, hasRecipients := many(s, "recipients", readDeviceRecipient)
	one(s, "message_size", &d.MessageSize, readSize)
	one(s, "rate_limit", &d.RateLimit, readCount(1, most))
	if c == nil {
		return taken
	}
	d.Networks = whats(networks)
	for _, to := range recipients {
		if to.what.IsNull() {
			d.Anybody = true
		} else {
			d.Recipients = append(d.Recipients, to.what)
		}
	}
	if !hasAddress || isEmptyList(s, "address") {
		r.complain(s.t.at, wrong(`add address = ":2526"`, "this listener does not say where it listens"))
	}
	if !hasNetworks || isEmptyList(s, "networks") {
		r.complain(s.t.at, wrong(`add networks = ["192.168.1.0/24"]`, "this listener does not say which machines may connect"))
	}
	if hasRecipients && isEmptyList(s, "recipients") {
		r.complain(s.t.get("recipients").at, wrong("leave the line out for everybody in your own domains", "with no recipients these devices could write to nobody"))
	}
	if d.Auth == AuthRequired && d.TLS == DeviceTLSOff && !d.PlaintextAuth {
		r.complain(auth, wrong("add plaintext_auth = true, or let tls be", "nobody could log in here: a login is required, TLS is off, and without it logins need plaintext_auth"))
	}
	if _, ours := c.Domains[d.Sender.Domain]; hasSender && !ours {
		r.warn(from, "", "reports about letters that cannot be delivered will leave for %s, which is not a domain of yours", d.Sender)
	}
	l := ListenDevice{Service: d.Service, ImplicitTLS: d.TLS == DeviceImplicitTLS}
	for _, a := range addresses {
		r.collision(a, "[[listen_device]]", taken)
		taken = append(taken, listener{a.what, "[[listen_device]]"})
		l.Addresses = append(l.Addresses, a.what.text)
	}
	c.Listen.Devices = append(c.Listen.Devices, l)
	c.Devices = append(c.Devices, d)
	return taken
}

func isEmptyList(s section, name string) bool {
	v := s.t.get(name).val
	return v.kind == kindList && len(v.items) == 0
}

// readDeviceSender reads the address that devices send as.
func readDeviceSender(v *value) (relay.Address, *problem) {
	s, p := readString(v)
	if p != nil {
		return relay.Address{}, p
	}
	a, err := relay.ParseAddress(s, false)
	if err != nil {
		return relay.Address{}, wrong(`write an address such as "scanner@office.example"`, "%q is not an address to send from: %s", clip(s), err)
	}
	return a, nil
}

// readDeviceRecipient reads an address, a domain, or "*" for anybody, which is the null address.
func readDeviceRecipient(v *value) (relay.Address, *problem) {
	s, p := readString(v)
	switch {
	case p != nil || s == "*":
		return relay.Address{}, p
	case strings.Contains(s, "@"):
		return readGrant(v)
	}
	d, p := parseName(s)
	return relay.Address{Local: "*", Domain: d}, p
}
