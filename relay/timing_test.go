package relay_test

import (
	"testing"
	"time"

	"relayd/relay"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// BY as it is written and as it is passed on later (RFC 2852 §4).
func TestDeliverBy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		later time.Duration
		want  string // "": malformed
	}{
		{"120;R", 0, "120;R"},
		{"120;r", 30 * time.Second, "90;R"},
		{"+120;NT", 30*time.Second + time.Millisecond, "90;NT"},
		{"120;RT", time.Hour, "1;RT"},
		{"120;N", time.Hour, "-3480;N"},
		{"-5;N", 0, "-5;N"},
		{"0;N", 0, "0;N"},
		{"999999999;R", 0, "999999999;R"},
		{"0;R", 0, ""},
		{"-1;R", 0, ""},
		{"1234567890;R", 0, ""},
		{"--1;N", 0, ""}, {"+-1;N", 0, ""}, {";R", 0, ""}, {"5;", 0, ""}, {"5", 0, ""}, {"5;X", 0, ""}, {"5;RTT", 0, ""}, {"5;TR", 0, ""},
		{"1.5;R", 0, ""}, {"+;N", 0, ""}, {"5;RN", 0, ""}, {"5;R;R", 0, ""},
	} {
		d, ok := relay.ParseDeliverBy(tt.in, noon)
		if ok != (tt.want != "") {
			t.Errorf("%s: %v", tt.in, ok)
		} else if got := d.Param(noon.Add(tt.later)); ok && got != tt.want {
			t.Errorf("%s after %v is %s, want %s", tt.in, tt.later, got, tt.want)
		}
	}
	d, _ := relay.ParseDeliverBy("60;R", noon)
	if d.Overdue(noon.Add(59*time.Second)) || !d.Overdue(noon.Add(time.Minute)) || (relay.DeliverBy{}).Overdue(noon) {
		t.Error("overdue at another time than its own")
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"0": "12:00:00", "3600": "13:00:00", "": "", "-1": "", "1h": "", "1234567890": ""} {
		at, ok := relay.ParseHoldFor(in, noon)
		if ok != (want != "") || ok && at.Format(time.TimeOnly) != want {
			t.Errorf("HOLDFOR=%s is %v, %v", in, at, ok)
		}
	}
	for in, want := range map[string]string{"2026-11-21T18:00:00Z": "18:00:00", "2026-11-21t18:00:00z": "18:00:00", "2026-11-21T18:00:00+02:00": "16:00:00",
		"": "", "tomorrow": "", "2026-11-21": "", "2026-13-21T18:00:00Z": ""} {
		at, ok := relay.ParseHoldUntil(in)
		if ok != (want != "") || ok && at.Format(time.TimeOnly) != want {
			t.Errorf("HOLDUNTIL=%s is %v, %v", in, at, ok)
		}
	}
}
