package ctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/autoconfig"
)

func (a *app) clientConfig() *cobra.Command {
	var asXML, asSRV bool
	cmd := &cobra.Command{
		Use: "client-config ADDRESS", Short: "Print what a person's mail program needs to know",
		Long: `client-config prints the settings for a mail program, as relayd listens: for Thunderbird, Outlook and
K-9, and a POP URL (RFC 2384). --xml prints the file that Thunderbird and others look for at
http://autoconfig.DOMAIN/mail/config-v1.1.xml, which relayd also serves on its listeners http, https
and metrics; --srv prints the records of RFC 6186 for the zone of the domain.`,
		Example: "  relayctl client-config ann@office.example\n  relayctl client-config --srv ann@office.example",
		Args:    wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asXML && asSRV {
				return usage("leave one of them out", "--xml and --srv are two different outputs")
			}
			user, err := address(args[0], nil)
			if err != nil {
				return err
			}
			s, err := a.clientSettings(cmd.Context(), user)
			if err != nil {
				return err
			}
			return a.printClientConfig(s, user, asXML, asSRV)
		},
	}
	cmd.Flags().BoolVar(&asXML, "xml", false, "the autoconfig file for a web server")
	cmd.Flags().BoolVar(&asSRV, "srv", false, "the SRV records for the DNS")
	return cmd
}

// clientSettings asks the configuration or, where that may not be in force, the running relayd.
func (a *app) clientSettings(ctx context.Context, user relay.Address) (s autoconfig.Settings, err error) {
	found, err := a.listeners(ctx)
	if err != nil {
		return s, err
	}
	listeners := make([]autoconfig.Listener, len(found))
	for i, l := range found {
		listeners[i] = autoconfig.Listener{Service: l.Service, Address: l.Address}
	}
	var hostname relay.Domain
	if a.dataFlag != "" {
		st, err := ask(ctx, a, (*admin.Client).Status)
		if err != nil {
			return s, err
		}
		hostname = relay.Domain(st.Hostname)
	} else {
		cfg, err := a.load()
		if err != nil {
			return s, err
		}
		if _, ours := cfg.Domains[user.Domain]; !ours {
			var names []string
			for _, d := range slices.Sorted(maps.Keys(cfg.Domains)) {
				names = append(names, string(d))
			}
			return s, hint(fmt.Errorf("%s is not a domain of this server", user.Domain),
				"its domains: %s", strings.Join(names, ", "))
		}
		hostname = cfg.Hostname
	}
	return autoconfig.New(hostname, []relay.Domain{user.Domain}, listeners), nil
}

func (a *app) printClientConfig(s autoconfig.Settings, user relay.Address, asXML, asSRV bool) error {
	if len(s.Incoming)+len(s.Outgoing) == 0 {
		return hint(fmt.Errorf("relayd listens neither for pop3 nor for submission"), "[listen] in the configuration says where it does")
	}
	var err error
	switch {
	case asXML:
		_, err = a.Stdout.Write(s.XML())
	case asSRV:
		_, err = fmt.Fprint(a.Stdout, s.SRV())
	case a.json:
		err = a.printJSON(struct {
			User     string              `json:"user"`
			Incoming []autoconfig.Server `json:"incoming"`
			Outgoing []autoconfig.Server `json:"outgoing"`
			URL      string              `json:"url,omitempty"`
		}{user.String(), s.Incoming, s.Outgoing, s.URL(user)})
	default:
		_, err = fmt.Fprint(a.Stdout, printableLines(s.Text(user)))
	}
	return err
}
