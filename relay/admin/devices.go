package admin

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"relayd/relay"
)

// Device is a machine that has connected to a device listener since the start; GET /v1/devices
// answers a list of them, the latest first.
type Device struct {
	Client  netip.Addr     `json:"client"`
	Service string         `json:"service"`
	Helo    string         `json:"helo,omitzero"` // what it calls itself
	Seen    time.Time      `json:"seen"`
	Letters int            `json:"letters"` // accepted
	Last    *DeviceLetter  `json:"last_message,omitempty"`
	Error   *DeviceTrouble `json:"last_error,omitempty"`
}

// DeviceLetter is a letter that was accepted from a device.
type DeviceLetter struct {
	ID   relay.ID  `json:"id"`
	From string    `json:"from"` // as the device has it
	To   string    `json:"to"`   // the first of them
	More int       `json:"more"` // recipients
	At   time.Time `json:"at"`
}

// DeviceTrouble is what went wrong, for somebody who stands before the device.
type DeviceTrouble struct {
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

func (s *Server) listDevices(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Devices == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd does not know its devices"))
		return
	}
	list := s.cfg.Devices()
	if list == nil {
		list = []Device{}
	}
	writeJSON(w, http.StatusOK, list)
}

// Devices asks which machines have connected to the device listeners.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	var list []Device
	err := c.get(ctx, "/v1/devices", &list)
	return list, err
}
