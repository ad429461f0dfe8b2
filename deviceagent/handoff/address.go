package handoff

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Kinds of an Address.
const (
	Unix  = "unix"
	HTTP  = "http"
	Stdin = "stdin"
)

// An Address is where signals are handed over.
type Address struct {
	Kind string // Unix, HTTP or Stdin
	At   string // a path, or a loopback HOST:PORT, or nothing
}

// ParseAddress reads unix:PATH, http:HOST:PORT or stdin.
func ParseAddress(s string) (Address, error) {
	kind, at, _ := strings.Cut(s, ":")
	a := Address{kind, at}
	switch kind {
	case Unix:
		switch {
		case at == "":
			return Address{}, errors.New(`needs a path, as in unix:/run/deviceagent/handoff.sock`)
		case strings.HasPrefix(at, "//"):
			return Address{}, fmt.Errorf("%q is no URL; write unix:/PATH", s)
		case at[0] == '@' || at[0] == 0:
			return Address{}, errors.New("abstract sockets have no file mode, so anybody could connect; write unix:/PATH")
		}
	case HTTP:
		if strings.HasPrefix(at, "//") {
			return Address{}, fmt.Errorf("%q is no URL; write http:HOST:PORT, as in http:127.0.0.1:7072", s)
		}
		host, port, err := net.SplitHostPort(at)
		if n, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil || n == 0 && port != "0" {
			return Address{}, fmt.Errorf("%q needs a host and a port, as in http:127.0.0.1:7072", s)
		}
		if !isLoopback(host) {
			return Address{}, fmt.Errorf("%s is not a loopback address: signals from elsewhere would be anybody's", host)
		}
	case Stdin:
		if s != Stdin {
			return Address{}, fmt.Errorf("%q: stdin has no address", s)
		}
	default:
		return Address{}, fmt.Errorf("%q is none of unix:PATH, http:HOST:PORT, stdin", s)
	}
	return a, nil
}

// String is what ParseAddress reads.
func (a Address) String() string {
	if a.At == "" {
		return a.Kind
	}
	return a.Kind + ":" + a.At
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
