package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"relayd/config"
)

// controlService is the name of the control socket among the listeners.
const controlService = "control"

// stopTimeout bounds a stop, stopGrace what sessions and attempts under way get of it.
const (
	stopTimeout = 10 * time.Second
	stopGrace   = 6 * time.Second
)

// serve runs everything until ctx ends or something breaks, then stops in order: the doors, the
// sessions, the drain, the control socket. Killing us at any line is safe anyway.
func (h *house) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	background := context.WithoutCancel(ctx)
	run := func(what string, f func() error) {
		running.Go(func() {
			if err := f(); err != nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	for _, l := range h.listeners {
		run(l.service, func() error { return h.serveOne(background, l) })
	}
	run("certs", func() error { return h.certs.Run(ctx) })
	run("refusals", func() error { h.rescues.run(ctx, h.config, h.intake, h.log); return nil })
	run("drain", func() error { return h.drain.Run(ctx) })
	run("callouts", func() error { h.callout.Run(ctx); return nil })
	run("domains", func() error { h.known.Run(ctx); return nil })
	run("gate", func() error { h.gate.Run(ctx); return nil })
	run("mta-sts", func() error { h.policies.Run(ctx); return nil })
	run("tls-reports", func() error { h.reports.Run(ctx); return nil })
	run("tls-hosts", func() error { h.secured.Run(ctx); return nil })
	run("dkim", func() error { return h.runKeys(ctx) })
	run("filters", func() error { h.filters.Run(ctx); return nil })
	run("dmarc", func() error { h.feedback.Run(ctx); return nil })
	run("quota", func() error { return fuse{h}.run(ctx) })
	run("drop", func() error { return h.collector().Run(ctx) })
	run("start", func() error { forgetStart(ctx); return nil })
	run("reload", func() error { return h.reloadOnHangup(ctx) })

	h.log.Info("started", "version", version(), "listening", addresses(h.listeners))
	tellManager(daemon.SdNotifyReady + "\nSTATUS=" + addresses(h.listeners))
	<-ctx.Done()
	tellManager(daemon.SdNotifyStopping)
	h.log.Info("stopping")
	err := h.stop()
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	h.log.Info("stopped")
	return err
}

// stop ends the servers, all at the same time. Sessions that had to be cut off are no failure.
func (h *house) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range h.smtp {
		wg.Go(func() { s.Shutdown(ctx) })
	}
	for _, s := range h.pop3 {
		wg.Go(func() { s.Shutdown(ctx) })
	}
	wg.Go(func() { h.certs.Shutdown(ctx) })
	wg.Go(func() { h.admin.Shutdown(ctx) })
	wg.Wait()
	return nil
}

func (h *house) reloadOnHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			h.reload(ctx)
		}
	}
}

// reload reads the configuration again. A wrong one changes nothing: its complaints go to the
// log and to whoever asked, and the old one stays in force.
func (h *house) reload(context.Context) error {
	h.reloading.Lock()
	defer h.reloading.Unlock()
	tellManager(daemon.SdNotifyReloading + "\n" + fmt.Sprintf("MONOTONIC_USEC=%d", monotonic()))
	defer tellManager(daemon.SdNotifyReady)
	next, err := h.load()
	if err != nil {
		h.log.Error("the new configuration is wrong, the old one stays in force", "err", err)
		return err
	}
	old := h.config()
	if name := needsRestart(old, next); name != "" {
		err := fmt.Errorf("%s cannot change while relayd runs: restart it; the old configuration stays in force", name)
		h.log.Error("not reloaded", "err", err)
		return err
	}
	paths, err := routes(next)
	if err != nil {
		h.log.Error("not reloaded", "err", err)
		return err
	}
	h.cfg.Store(next)
	h.level.Set(next.Log.Level)
	h.setIntake(next)
	h.gate.Set(gateRules(next))
	h.keys.SetDomains(signingDomains(next))
	h.reloadSMTP(next)
	h.queue.SetSchedule(schedule(next))
	h.client.SetRoutes(paths)
	h.log.Info("reloaded", "config", next.Path)
	return nil
}

// needsRestart names the first setting that differs and is built into a room for good.
func needsRestart(old, next *config.Config) string {
	for _, s := range []struct {
		name string
		a, b any
	}{
		{"hostname", old.Hostname, next.Hostname}, {"data_dir", old.DataDir, next.DataDir}, {"drop_dir", old.DropDir, next.DropDir}, {"[listen]", old.Listen, next.Listen},
		{"[tls]", certificates(old), certificates(next)},
		{"[dns]", []any{old.DNSServers, old.TrustAD}, []any{next.DNSServers, next.TrustAD}}, {"[outbound]", old.Outbound, next.Outbound}, {"[pop3]", old.POP3, next.POP3},
		{"log.format", old.Log.Format, next.Log.Format},
		{"limits.pop3_connections", old.Limits.POP3Connections, next.Limits.POP3Connections},
		{"limits.pop3_connections_per_address", old.Limits.POP3PerAddress, next.Limits.POP3PerAddress},
	} {
		if !reflect.DeepEqual(s.a, s.b) {
			return s.name
		}
	}
	return ""
}
