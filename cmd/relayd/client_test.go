package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdSend is `send [-at IP] [-to ADDR] [-from PATH] [-tls starttls|implicit] [-user NAME -password WORD]
// -rcpt ADDR[,ADDR...] FILE`: it sends the file, whose line ends become CRLF, and prints the replies to MAIL, each RCPT
// and the message, whose ID becomes $ID. It fails when the message is not accepted. `! send` wants a refusal.
func cmdSend(ts *testscript.TestScript, neg bool, args []string) {
	fs := flag.NewFlagSet("send", flag.ContinueOnError)
	at := fs.String("at", "", "")
	to := fs.String("to", ts.Getenv("SMTP"), "")
	from := fs.String("from", "writer@partner.example", "")
	rcpts := fs.String("rcpt", "", "")
	count := fs.Int("n", 1, "")
	user := fs.String("user", "", "")
	password := fs.String("password", "", "")
	secure := fs.String("tls", "", "")
	ts.Check(fs.Parse(args))
	body := toWire([]byte(ts.ReadFile(fs.Arg(0))))
	d, err := dialFrom(&net.TCPAddr{IP: net.ParseIP(*at)}, *to)
	ts.Check(err)
	defer d.Close()
	d.hello(*secure)
	if *user != "" {
		d.say("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+*user+"\x00"+*password)))
	}
	accepted := true
	for range *count {
		var out string
		out, accepted = d.letter(*from, strings.Split(*rcpts, ","), body)
		fmt.Fprint(ts.Stdout(), out)
		if _, id, ok := strings.Cut(out, " queued as "); ok {
			ts.Setenv("ID", strings.TrimSpace(id))
		}
	}
	d.say("QUIT")
	ts.Check(d.err)
	if accepted == neg {
		ts.Fatalf("accepted: %v", accepted)
	}
}

// cmdPop is `pop [-at IP] USER PASSWORD COMMAND...`: it connects, from that address, logs in, gives each quoted command, quits, and
// prints the replies as they came, without the login's.
func cmdPop(ts *testscript.TestScript, neg bool, args []string) {
	local := &net.TCPAddr{}
	if args[0] == "-at" {
		local.IP = net.ParseIP(args[1])
		args = args[2:]
	}
	d, err := dialFrom(local, ts.Getenv("POP3"))
	ts.Check(err)
	defer d.Close()
	d.expect("+OK")
	d.pop("USER " + args[0])
	if reply := d.pop("PASS " + args[1]); !strings.HasPrefix(reply, "+OK") {
		fmt.Fprint(ts.Stdout(), reply)
		if !neg {
			ts.Fatalf("%s", reply)
		}
		return
	}
	for _, c := range append(args[2:], "QUIT") {
		fmt.Fprint(ts.Stdout(), strings.ReplaceAll(d.pop(c), "\r\n", "\n"))
	}
	ts.Check(d.err)
}

// dialogue is a client that keeps its first error.
type dialogue struct {
	net.Conn
	r   *bufio.Reader
	err error
}

func dial(addr string) (*dialogue, error) { return dialFrom(&net.TCPAddr{}, addr) }

func dialFrom(local *net.TCPAddr, addr string) (*dialogue, error) {
	conn, err := (&net.Dialer{Timeout: patience, LocalAddr: local}).Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	return &dialogue{Conn: conn, r: bufio.NewReader(conn)}, nil
}

// hello greets the server, over TLS if secure says how.
func (d *dialogue) hello(secure string) {
	if secure == "implicit" {
		d.encrypt()
	}
	d.expect("220")
	d.say("EHLO client.example")
	if secure == "starttls" {
		d.write("STARTTLS\r\n")
		d.expect("220")
		d.encrypt()
		d.say("EHLO client.example")
	}
}

// encrypt goes on over TLS. The certificates of the stories are self-signed.
func (d *dialogue) encrypt() {
	d.Conn = tls.Client(d.Conn, &tls.Config{InsecureSkipVerify: true})
	d.r = bufio.NewReader(d.Conn)
}

func (d *dialogue) letter(from string, rcpts []string, body []byte) (out string, accepted bool) {
	var b strings.Builder
	b.WriteString(d.say("MAIL FROM:<" + from + ">"))
	for _, r := range rcpts {
		b.WriteString(d.say("RCPT TO:<" + r + ">"))
	}
	reply := d.say("DATA")
	if strings.HasPrefix(reply, "354") {
		d.write(string(body) + ".\r\n")
		reply = d.reply()
	} else {
		d.say("RSET")
	}
	b.WriteString(reply)
	return b.String(), strings.HasPrefix(reply, "250")
}

func (d *dialogue) write(s string) {
	if d.err == nil {
		_, d.err = io.WriteString(d.Conn, s)
	}
}

// say gives a command and returns its reply, the last line of it, with a newline.
func (d *dialogue) say(command string) string {
	d.write(command + "\r\n")
	return d.reply()
}

func (d *dialogue) reply() string {
	for {
		line := d.line()
		if len(line) < 4 || line[3] != '-' {
			return line
		}
	}
}

func (d *dialogue) line() string {
	if d.err != nil {
		return ""
	}
	line, err := d.r.ReadString('\n')
	if err != nil {
		d.err = err
	}
	return strings.TrimRight(line, "\r\n") + "\n"
}

func (d *dialogue) expect(prefix string) {
	if line := d.reply(); d.err == nil && !strings.HasPrefix(line, prefix) {
		d.err = fmt.Errorf("want %s, got %s", prefix, line)
	}
}

// pop gives a POP3 command and returns its whole reply, dots unstuffed.
func (d *dialogue) pop(command string) string {
	d.write(command + "\r\n")
	first := d.line()
	if !strings.HasPrefix(first, "+OK") || !multiline(command) {
		return first
	}
	var reply strings.Builder
	reply.WriteString(first)
	for d.err == nil {
		line, err := d.r.ReadString('\n')
		if d.err = err; line == ".\r\n" {
			break
		}
		reply.WriteString(strings.TrimPrefix(line, "."))
	}
	return reply.String()
}

func multiline(command string) bool {
	word, arg, _ := strings.Cut(strings.ToUpper(command), " ")
	return word == "RETR" || word == "TOP" || word == "CAPA" || (word == "LIST" || word == "UIDL") && arg == ""
}

// toWire gives a text CRLF line ends and stuffs its dots.
func toWire(text []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.Write(bytes.TrimRight(line, "\r\n"))
		b.WriteString("\r\n")
	}
	return b.Bytes()
}
