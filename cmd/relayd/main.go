// Command relayd is the mail server: it wires the rooms together and owns signals and exit codes.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"relayd/config"
)

// Exit codes: done, failed, wrong usage.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errUsage marks what the command line got wrong.
var errUsage = errors.New("wrong usage")

// options are the command line.
type options struct {
	configFile string
	dataDir    string
	listen     []string
	dev        bool
	check      bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	cmd := &cobra.Command{
		Use:           "relayd [--config FILE | --dev] [-t]",
		Short:         "a mail server for a small office",
		Version:       version(),
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.dev && cmd.Flags().Changed("config") {
				return fmt.Errorf("%w: --dev needs no --config", errUsage)
			}
			return start(cmd.Context(), o, stdout, stderr)
		},
	}
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	flags := cmd.Flags()
	flags.StringVar(&o.configFile, "config", config.DefaultPath, "the configuration `file`")
	flags.BoolVar(&o.dev, "dev", false, "run the development office: loopback only, no file needed")
	flags.StringVar(&o.dataDir, "data", devData, "with --dev: the `folder` for its mail")
	flags.StringArrayVar(&o.listen, "listen", nil, "with --dev: another address for a service, `SERVICE=127.0.0.1:PORT`; repeatable")
	flags.BoolVarP(&o.check, "test", "t", false, "check the configuration and exit")
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "relayd: %v\nhint: relayd --help lists the options\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "relayd: %v\n", err)
	return exitFailed
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %q is one word too many", errUsage, args[0])
	}
	return nil
}

func start(ctx context.Context, o options, stdout, stderr io.Writer) error {
	load := func() (*config.Config, error) { return config.Load(o.configFile) }
	if o.dev {
		load = func() (*config.Config, error) { return devConfig(o.dataDir, o.listen) }
	}
	if !o.dev && len(o.listen) > 0 {
		return fmt.Errorf("%w: --listen is for --dev; the addresses of an office stand in [listen]", errUsage)
	}
	cfg, err := load()
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	if o.check {
		if _, err := routes(cfg); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s is fine\n", cmp.Or(cfg.Path, "the development office"))
		return nil
	}
	collectGarbage()
	h, err := build(ctx, cfg, load, stderr)
	if err != nil {
		return err
	}
	defer h.close()
	if o.dev {
		if err := h.welcome(ctx, stdout); err != nil {
			return err
		}
	}
	return h.serve(ctx)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
