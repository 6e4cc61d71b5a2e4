package intake_test

import (
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
)

func (h *house) withDevice(d intake.Device) *house {
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}, Devices: map[string]intake.Device{"device": d}})
	return h
}

func scanner() relay.Origin {
	o := stranger
	o.Service, o.Helo = "device", "scanner"
	return o
}

// A device reaches the recipients on its list, or without one our own domains, and nobody else:
// not by trust, not by a login, not in any spelling.
func TestDeviceRecipients(t *testing.T) {
	t.Parallel()
	trustedDevice, loggedIn := scanner(), scanner()
	trustedDevice.Client = trusted.Client
	loggedIn.User = "ann@office.example"
	list := []relay.Address{{Local: "dora", Domain: "partner.example"}, {Local: "*", Domain: "branch.example"}, {Local: "bob", Domain: "office.example"}}
	for _, c := range []struct {
		device intake.Device
		to     string
		want   string
	}{
		{intake.Device{}, "ann@office.example", ""},
		{intake.Device{}, "sales@office.example", ""},
		{intake.Device{}, "nobody@office.example", "5.1.1"},
		{intake.Device{}, "dora@partner.example", "5.7.1"},
		{intake.Device{}, "dora%partner.example@office.example", "5.1.1"},
		{intake.Device{Recipients: list}, "dora@partner.example", ""},
		{intake.Device{Recipients: list}, "DORA@Partner.example", ""},
		{intake.Device{Recipients: list}, "dora+x@partner.example", "5.7.1"},
		{intake.Device{Recipients: list}, "eve@partner.example", "5.7.1"},
		{intake.Device{Recipients: list}, "carol@branch.example", ""},
		{intake.Device{Recipients: list}, "Bob+scans@office.example", ""},
		{intake.Device{Recipients: list}, "bob@[198.51.100.1]", ""},
		{intake.Device{Recipients: list}, "ann@office.example", "5.7.1"},
		{intake.Device{Anybody: true}, "eve@anywhere.example", ""},
		{intake.Device{Anybody: true}, "nobody@office.example", "5.1.1"},
	} {
		for _, o := range []relay.Origin{scanner(), trustedDevice, loggedIn} {
			h := newHouse(t).withDevice(c.device)
			from := "ann@office.example"
			if got := h.submit(t, o, from, "From: ann\r\n\r\n", c.to); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("%+v to %s from %v as %q: %q, want %q", c.device, c.to, o.Client, o.User, got, c.want)
			}
		}
	}
}

func TestDeviceLogin(t *testing.T) {
	t.Parallel()
	h := newHouse(t).withDevice(intake.Device{Login: true})
	o := scanner()
	if got := h.submit(t, o, "x@y.example", hello, "ann@office.example"); !strings.Contains(got, "5.7.0") {
		t.Errorf("without a login: %q", got)
	}
	o.User = "ann@office.example"
	if got := h.submit(t, o, "x@y.example", hello, "ann@office.example"); !strings.Contains(got, "5.7.1") {
		t.Errorf("as somebody else: %q", got)
	}
	if got := h.submit(t, o, "ann@office.example", hello, "ann@office.example"); got != "" {
		t.Errorf("as itself: %q", got)
	}
}

// What a device leaves out is added, and who it claims to be is replaced by what the config says.
func TestDeviceLetterIsPutInOrder(t *testing.T) {
	t.Parallel()
	const added = "From: scanner@office.example\r\nDATE\r\nMessage-ID: ID\r\n"
	const subject = "Subject: from the device at 192.0.2.9\r\n"
	const utf8 = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
	const latin = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
	for name, c := range map[string]struct{ sent, want string }{
		"all missing":     {"\r\nbody\r\n", added + subject + utf8 + "\r\nbody\r\n"},
		"empty":           {"", added + subject + utf8},
		"utf-8":           {"Subject: x\r\n\r\nGr\u00fc\u00dfe\r\n", added + utf8 + "Subject: x\r\n\r\nGr\u00fc\u00dfe\r\n"},
		"latin-1":         {"Subject: x\r\n\r\nGr\xfc\xdfe\r\n", added + latin + "Subject: x\r\n\r\nGr\xfc\xdfe\r\n"},
		"encoded":         {"Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nx", added + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nSubject: x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nx"},
		"no MIME-Version": {"Subject: x\r\nContent-Type: image/tiff\r\n\r\nx", added + "MIME-Version: 1.0\r\nSubject: x\r\nContent-Type: image/tiff\r\n\r\nx"},
		"another From": {"From: Copier <a@b>,\r\n\tx@y\r\nsender: q\r\nSubject: x\r\nMime-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nx",
			added + "X-Original-From: Copier <a@b>,\r\n\tx@y\r\nX-Original-sender: q\r\nSubject: x\r\nMime-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nx"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t).withDevice(intake.Device{Sender: relay.Address{Local: "scanner", Domain: "office.example"}})
			if got := h.submit(t, scanner(), "root@localhost", c.sent, "bob@office.example"); got != "" {
				t.Fatal(got)
			}
			got := h.local.letters[0]
			if got.env.From.String() != "scanner@office.example" {
				t.Errorf("from %s", got.env.From)
			}
			text := strings.TrimPrefix(got.body, "Return-Path: <scanner@office.example>\r\nDelivered-To: bob@office.example\r\n")
			text = ids.ReplaceAllString(dates.ReplaceAllString(trace.ReplaceAllString(text, "$1"), "DATE\r"), "ID")
			if text != c.want {
				t.Errorf("got\n%q\nwant\n%q", text, c.want)
			}
		})
	}
}

// A text of which only the beginning was seen is never called ASCII.
func TestDeviceLongText(t *testing.T) {
	t.Parallel()
	h := newHouse(t).withDevice(intake.Device{})
	if got := h.submit(t, scanner(), "a@b.example", "\r\n"+strings.Repeat("\u00fcber ", 50_000), "bob@office.example"); got != "" {
		t.Fatal(got)
	}
	if !strings.Contains(h.local.letters[0].body, "charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n") {
		t.Errorf("%.400q", h.local.letters[0].body)
	}
}
