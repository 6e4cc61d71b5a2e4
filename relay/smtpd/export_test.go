package smtpd

import "net/netip"

func (d *Devices) Saw(client netip.Addr, service string)      { d.saw(client, service) }
func (d *Devices) Stranger(client netip.Addr, service string) { d.stranger(client, service) }
