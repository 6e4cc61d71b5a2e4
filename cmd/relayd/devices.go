package main

import (
	"net/netip"
	"slices"

	"relayd/config"
	"relayd/relay/admin"
	"relayd/relay/intake"
	"relayd/relay/smtpd"
)

// device is the config of a device listener.
func device(cfg *config.Config, service string) config.Device {
	i := slices.IndexFunc(cfg.Devices, func(d config.Device) bool { return d.Service == service })
	return cfg.Devices[i] // there is one for each listener
}

// deviceServers makes a server for each device listener. They are like the others, but for the
// profile; what they may send is intake's business.
func (h *house) deviceServers(cfg *config.Config, base smtpd.Config, servers map[string]*smtpd.Server) {
	for _, l := range cfg.Listen.Devices {
		c := h.deviceConfig(cfg, l.Service)
		c.Hostname, c.Accept, c.Resolver, c.Gate, c.Log = base.Hostname, base.Accept, base.Resolver, base.Gate, base.Log
		c.Service, c.ImplicitTLS, c.Auth = l.Service, l.ImplicitTLS, h.users
		servers[l.Service] = smtpd.New(c)
	}
}

// deviceConfig is the part of a device server's configuration that a reload changes.
func (h *house) deviceConfig(cfg *config.Config, service string) smtpd.Config {
	c, d := h.smtpConfig(cfg, service), device(cfg, service)
	if d.TLS == config.DeviceTLSOff {
		c.TLS = nil
	}
	if d.MessageSize > 0 {
		c.Limits.MessageSize = d.MessageSize
	}
	c.Profile = smtpd.Profile{
		Admit: func(client netip.Addr) bool {
			client = client.Unmap()
			return slices.ContainsFunc(d.Networks, func(p netip.Prefix) bool { return p.Contains(client) })
		},
		Lenient: true, NoLogin: d.Auth == config.AuthOff, PlaintextAuth: d.PlaintextAuth,
		LettersPerHour: d.RateLimit, Devices: h.devices,
	}
	return c
}

// reloadSMTP puts the config in force at every SMTP server.
func (h *house) reloadSMTP(cfg *config.Config) {
	devices := map[string]bool{}
	for _, d := range cfg.Devices {
		devices[d.Service] = true
	}
	for service, s := range h.smtp {
		if devices[service] {
			s.Reload(h.deviceConfig(cfg, service))
		} else {
			s.Reload(h.smtpConfig(cfg, service))
		}
	}
}

// deviceRules are what devices may do, for intake.
func deviceRules(cfg *config.Config) map[string]intake.Device {
	rules := map[string]intake.Device{}
	for _, d := range cfg.Devices {
		rules[d.Service] = intake.Device{Sender: d.Sender, Login: d.Auth == config.AuthRequired, Anybody: d.Anybody, Recipients: d.Recipients}
	}
	return rules
}

// seenDevices shows relay/smtpd's memory to relay/admin.
func (h *house) seenDevices() []admin.Device {
	var list []admin.Device
	for _, d := range h.devices.List() {
		a := admin.Device{Client: d.Client, Service: d.Service, Helo: d.Helo, Seen: d.Seen, Letters: d.Letters}
		if d.Letters > 0 {
			a.Last = &admin.DeviceLetter{ID: d.ID, From: d.From.String(), To: d.To.String(), More: d.Rcpts - 1, At: d.At}
		}
		if d.Trouble != "" {
			a.Error = &admin.DeviceTrouble{Text: d.Trouble, At: d.TroubleAt}
		}
		list = append(list, a)
	}
	return list
}
