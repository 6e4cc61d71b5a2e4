// Relayctl is the operator's tool of relayd. See relayctl --help.
package main

import (
	"os"

	"relayd/cmd/relayctl/ctl"
)

func main() { os.Exit(ctl.Main(ctl.Command(os.Args))) }
