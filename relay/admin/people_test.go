package admin_test

import (
	"fmt"
	"io"
	"log/slog"
	"testing"

	"relayd/relay"
	"relayd/relay/admin"
)

// Users are counted by what the log says of them, at any level of the log, under one name each and
// never under one that a stranger made up.
func TestPeople(t *testing.T) {
	t.Parallel()
	m := admin.NewMetrics()
	log := slog.New(m.Handler(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))).With("room", "test")
	ann := relay.Address{Local: "Ann", Domain: "office.example"}
	log.Info("logged in", "user", ann)
	log.Info("logged in", "user", "ann@office.example")
	log.Info("accepted", "size", int64(100), "user", "ann@office.example")
	log.Info("accepted", "size", int64(100), "user", "")
	log.Info("delivered", "rcpt", "sales@office.example", "mailbox", ann)
	log.Info("delivered", "rcpt", "bob@partner.example")
	log.Info("fetched", "user", "ann@office.example", "size", int64(70))
	log.Warn("refused", "user", "stranger")
	log.Info("logged out", "user", ann)
	want := fmt.Sprint([]admin.UserStats{{User: "ann@office.example", Connections: 2, Now: 1, Sent: 1, Delivered: 1, Fetched: 1, BytesIn: 100, BytesOut: 70}})
	if got := fmt.Sprint(m.Stats().Users); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for n := range 20_000 {
		log.Info("delivered", "mailbox", fmt.Sprint(n))
	}
	if n := len(m.Stats().Users); n != 10_000 {
		t.Errorf("%d users are counted", n)
	}
}
