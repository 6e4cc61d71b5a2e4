package filter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"relayd/relay"
)

// clamd speaks INSTREAM as clamd(8) has it: pieces with their lengths before them, an empty one at
// the end, and one line of an answer.
type clamd struct{ hostname string }

const (
	clamPiece  = 32 << 10
	clamAnswer = 4 << 10 // octets; a signature's name and little else
)

func (c clamd) check(conn net.Conn, l *Letter) (Verdict, error) {
	sent := c.send(conn, l)
	if errors.Is(sent, errReading) {
		return Verdict{}, sent
	}
	// It may have said why before it hung up.
	line, err := bufio.NewReader(io.LimitReader(conn, clamAnswer)).ReadString(0)
	if err != nil {
		return Verdict{}, errors.Join(sent, fmt.Errorf("its answer breaks off: %w", err))
	}
	return c.read(strings.TrimSuffix(line, "\x00"))
}

// errReading is an error of ours, which says nothing of the program.
var errReading = errors.New("filter: the held letter cannot be read")

// send begins with a Received field, by which clamd knows a letter whatever its first field is.
func (c clamd) send(conn net.Conn, l *Letter) error {
	buf := make([]byte, 4, 4+clamPiece)
	letter := io.MultiReader(strings.NewReader("Received: by "+c.hostname+" (relayd)\r\n"), bytes.NewReader(l.Header), l.Body())
	if _, err := io.WriteString(conn, "zINSTREAM\x00"); err != nil {
		return err
	}
	for {
		n, err := io.ReadFull(letter, buf[4:4+clamPiece])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return errors.Join(errReading, err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		if _, err := conn.Write(buf[:4+n]); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

// read understands "stream: OK", "stream: NAME FOUND" and "... ERROR".
func (c clamd) read(line string) (Verdict, error) {
	line = strings.TrimSpace(line)
	v := Verdict{}
	var e edits
	e.add(Add, "X-Virus-Scanned", "clamd at "+c.hostname, 0)
	_, said, _ := strings.Cut(line, ": ")
	switch {
	case said == "OK":
		v.Word = "clean"
		e.add(Add, "X-Virus-Status", "Clean", 0)
	case strings.HasSuffix(said, " FOUND"):
		name := sentence(strings.TrimSuffix(said, " FOUND"), "unnamed")
		v.Word, v.Action = "found:"+word(name), Reject
		v.Reply = relay.Reply{Code: 550, Status: relay.Status{5, 7, 1}, Text: "the message contains what looks like a virus: " + name}
		e.add(Add, "X-Virus-Status", "Infected ("+name+")", 0)
	case strings.Contains(line, "size limit exceeded"):
		return v, errLimit
	default:
		return v, fmt.Errorf("it says %q", sentence(line, "nothing"))
	}
	v.Edits = e.list
	return v, nil
}

func (c clamd) ping(conn net.Conn) error {
	if _, err := io.WriteString(conn, "zPING\x00"); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, clamAnswer)).ReadString(0)
	if err == nil && line != "PONG\x00" {
		err = fmt.Errorf("it says %q to PING", sentence(line, "nothing"))
	}
	return err
}
