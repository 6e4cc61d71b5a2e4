package ctl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"relayd/config"
	"relayd/relay/admin"
)

// How long a server may take. RFC 5321 §4.5.3.2 gives 10 minutes to the answer to the end of a
// letter, which may have to be flushed to a slow disk; a person waits for everything else.
const (
	dialPatience   = 30 * time.Second
	wirePatience   = 2 * time.Minute
	acceptPatience = 10 * time.Minute
)

// endpoint is a server to talk to.
type endpoint struct {
	addr string // host:port
	transport
}

// endpoint reads HOST:PORT, or takes the first listener of the services in the order given.
func (a *app) endpoint(ctx context.Context, flag string, t transport, services ...string) (endpoint, error) {
	if flag == "" {
		return a.listener(ctx, t, services)
	}
	host, port, err := net.SplitHostPort(flag)
	if err != nil || host == "" || port == "" || port == "0" {
		return endpoint{}, usage("such as mail.office.example:587 or [::1]:2525", "%q is not HOST:PORT", flag)
	}
	t.tls = t.tls || port == "465" || port == "995"
	return endpoint{flag, t}, nil
}

func (a *app) listener(ctx context.Context, t transport, services []string) (endpoint, error) {
	addresses, err := a.listeners(ctx)
	if errors.Is(err, config.ErrNoFile) {
		return endpoint{}, hint(fmt.Errorf("no server is known: there is no configuration file %s", a.configFile),
			"--server HOST:PORT names it; --config dev means relayd --dev in this folder")
	}
	if err != nil {
		return endpoint{}, fmt.Errorf("no server is known: %w", err)
	}
	for _, service := range services {
		i := slices.IndexFunc(addresses, func(l admin.Address) bool { return l.Service == service })
		if i >= 0 {
			t.tls = t.tls || service == "submissions" || service == "pop3s"
			return endpoint{reachable(addresses[i].Address), t}, nil
		}
	}
	return endpoint{}, hint(fmt.Errorf("relayd does not listen for %s", services[0]), "--server HOST:PORT names another server")
}

// listeners are those of the configuration, or with --data-dir or --config dev, which can be
// told to listen elsewhere, those of the running relayd.
func (a *app) listeners(ctx context.Context) ([]admin.Address, error) {
	if a.dataFlag != "" || a.isDev() {
		st, err := ask(ctx, a, (*admin.Client).Status)
		return st.Listeners, err
	}
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	var list []admin.Address
	add := func(service string, addresses []string) {
		for _, addr := range addresses {
			list = append(list, admin.Address{Service: service, Address: addr})
		}
	}
	add("smtp", cfg.Listen.SMTP)
	add("submission", cfg.Listen.Submission)
	add("submissions", cfg.Listen.Submissions)
	add("pop3", cfg.Listen.POP3)
	add("pop3s", cfg.Listen.POP3S)
	return list, nil
}

// reachable turns the address of a listener on all interfaces into one to connect to.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// wire is a connection on which no single read or write lasts longer than patience, and that ends
// with its context.
type wire struct {
	net.Conn
	patience time.Duration
	left     int64 // octets that may still be read; below 0: any number
	release  func() bool
}

var errTooMuch = errors.New("the server answers without end")

func (w *wire) Read(p []byte) (int, error) {
	if w.left == 0 {
		return 0, errTooMuch
	}
	if w.left > 0 {
		p = p[:min(int64(len(p)), w.left)]
	}
	w.SetReadDeadline(time.Now().Add(w.patience))
	n, err := w.Conn.Read(p)
	if w.left > 0 {
		w.left -= int64(n)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.SetWriteDeadline(time.Now().Add(w.patience))
	return w.Conn.Write(p)
}

func (w *wire) Close() error {
	w.release()
	return w.Conn.Close()
}

// dial connects; limit bounds what will be read, below 0: not at all.
func (e endpoint) dial(ctx context.Context, limit int64) (*wire, error) {
	d := net.Dialer{Timeout: dialPatience}
	conn, err := d.DialContext(ctx, "tcp", e.addr)
	if err != nil {
		err = fmt.Errorf("no connection to %s: %w", e.addr, err)
		if errors.Is(err, syscall.ECONNREFUSED) {
			err = hint(err, "is the server running? relayctl status tells for relayd")
		}
		return nil, err
	}
	// A read in progress notices nothing of a context by itself.
	release := context.AfterFunc(ctx, func() { conn.Close() })
	return &wire{Conn: conn, patience: wirePatience, left: limit, release: release}, nil
}

// loopback says whether the other end is on this machine.
func (w *wire) loopback() bool {
	to, err := netip.ParseAddrPort(w.RemoteAddr().String())
	return err == nil && to.Addr().Unmap().IsLoopback()
}

// tlsConfig checks the certificate of any machine but this one, whose relayd has signed its own.
func (e endpoint) tlsConfig(w *wire) *tls.Config {
	host, _, _ := net.SplitHostPort(e.addr)
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.insecure || w.loopback()}
}

// handshake speaks TLS on w.
func (e endpoint) handshake(ctx context.Context, w *wire) (*tls.Conn, error) {
	conn := tls.Client(w, e.tlsConfig(w))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, e.tlsFailed(err)
	}
	return conn, nil
}

// tlsFailed adds advice to a failed handshake.
func (e endpoint) tlsFailed(err error) error {
	err = fmt.Errorf("TLS with %s: %w", e.addr, err)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return hint(err, "--insecure trusts it all the same")
	}
	return err
}

// errPlain refuses to give a password away.
func (e endpoint) errPlain() error {
	return hint(fmt.Errorf("%s offers no TLS, so the password would travel in the clear", e.addr),
		"use a port with TLS, such as 465 or 587 for sending and 995 for reading")
}
