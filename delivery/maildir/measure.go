package maildir

import (
	"errors"
	"io"
)

// measure reads a letter to learn how many octets RETR sends of it: every lone LF becomes CRLF,
// and a last line without an end gets one.
func measure(path string) (int64, error) {
	f, err := openRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var octets int64
	var last byte = '\n'
	for {
		n, err := f.Read((*buf)[:bufferSize])
		if n > 0 {
			p := (*buf)[:n]
			octets += int64(n) + loneLF(p, last)
			last = p[n-1]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if last != '\n' {
		octets += 2
	}
	return octets, nil
}
