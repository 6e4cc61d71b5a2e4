package dsn

// StatusType is the type of the part for programs.
func (r Report) StatusType() string { return r.statusType() }
