//go:build !race

package session_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"websocketbridge/relay/session"
)

// Moving bytes allocates nothing, whichever way they go in and out. The race
// detector makes sync.Pool forget on purpose, so this runs without it.
func TestAllocs(t *testing.T) {
	a, b := net.Pipe()
	req, dev, stop := pair(t, a, b, session.Config{MaxBuffered: -1})
	defer stop()
	x, y := open(t, req, dev)
	go io.Copy(y, y) // WriteTo
	p := make([]byte, 100<<10)
	src := bytes.NewReader(p)
	for name, run := range map[string]func(){
		"large": func() {
			x.Write(p)
			io.ReadFull(x, p)
		},
		"small": func() {
			x.Write(p[:64])
			io.ReadFull(x, p[:64])
		},
		"from": func() {
			src.Reset(p)
			x.ReadFrom(src)
			io.ReadFull(x, p)
		},
	} {
		if n := testing.AllocsPerRun(200, run); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
