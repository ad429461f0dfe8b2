package session_test

import (
	"net"
	"testing"

	"websocketbridge/relay/session"

	"golang.org/x/net/nettest"
)

func TestConn(t *testing.T) {
	for name, connect := range map[string]func(testing.TB) (net.Conn, net.Conn){
		"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
		"tcp":  tcpPipe,
	} {
		for _, opener := range []string{"requester", "device"} {
			t.Run(name+"/"+opener, func(t *testing.T) {
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					a, b := connect(t)
					req, dev, stop := pair(t, a, b, session.Config{})
					from, to := req, dev
					if opener == "device" {
						from, to = dev, req
					}
					c1, c2 = open(t, from, to)
					return c1, c2, stop, nil
				})
			})
		}
	}
}
