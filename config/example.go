package config

import _ "embed"

// Example is a whole configuration file with every setting, its default and what it is for. The
// README shows it.
//
//go:embed relayd.example.toml
var Example string
