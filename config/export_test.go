package config

// Keys are all settings and tables the grammar knows, by path.
func Keys() []string {
	r := &reader{name: "relayd.toml", known: map[string][]string{}}
	r.config(newTable(span{}), Default())
	var keys []string
	for path, names := range r.known {
		for _, n := range names {
			if path != "" {
				n = path + "." + n
			}
			keys = append(keys, n)
		}
	}
	return keys
}
