package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"websocketbridge/relay/wire"
)

// forward is one [LOCAL:]TARGET.
type forward struct {
	local  string // host:port to listen on; port 0: a free one
	free   bool   // the user left the port to us
	target string
}

// parseForward reads [[BIND:]PORT:]TARGET, where TARGET may be HOST:PORT itself.
// A port in front always is the local one; an address in front is the local one
// only if something is left for a target behind its port.
func parseForward(spec string) (forward, error) {
	f := forward{local: "127.0.0.1:0", free: true, target: spec}
	head, rest, split := strings.Cut(spec, ":")
	switch host, port, target, bound := cutBind(spec); {
	case split && isNumber(head):
		f = forward{local: net.JoinHostPort("127.0.0.1", head), free: head == "0", target: rest}
		if !isPort(head) {
			return f, fmt.Errorf("has local port %s; ports end at 65535", head)
		}
	case bound:
		f = forward{local: net.JoinHostPort(host, port), free: port == "0", target: target}
		if !isPort(port) {
			return f, fmt.Errorf("has local port %s; ports end at 65535", port)
		}
	}
	switch err := wire.CheckTarget(f.target); {
	case f.target == "" && split:
		return f, errors.New("names no target behind the local port")
	case err != nil:
		return f, fmt.Errorf("has a target that %w", err)
	case strings.HasPrefix(f.target, ":"):
		return f, errors.New("starts its target with a colon; a target is a NAME or HOST:PORT")
	case strings.HasSuffix(f.target, ":"):
		return f, errors.New("ends with a colon; a target is a NAME or HOST:PORT")
	}
	return f, nil
}

// cutBind splits BIND:PORT:TARGET.
func cutBind(spec string) (host, port, target string, ok bool) {
	if strings.HasPrefix(spec, "[") {
		end := strings.Index(spec, "]:")
		if end < 0 {
			return
		}
		host, spec = spec[1:end], spec[end+2:]
	} else if host, spec, ok = strings.Cut(spec, ":"); !ok {
		return
	}
	port, target, ok = strings.Cut(spec, ":")
	_, err := netip.ParseAddr(host)
	return host, port, target, ok && isNumber(port) && (err == nil || host == "localhost")
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}
