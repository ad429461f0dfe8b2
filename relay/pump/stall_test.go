package pump

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// Two ends that both send and never read are not kept for ever.
func TestNeitherSideReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nearA := net.Pipe()
		b, nearB := net.Pipe()
		message := ws.AppendHeader(nil, ws.Header{Fin: true, Opcode: ws.OpBinary, Masked: true, Len: 1 << 20})
		message = append(message, make([]byte, 1<<20)...)
		for _, c := range []net.Conn{a, b} {
			go c.Write(message)
		}
		res := Run(context.Background(), NewLeg(nearA), NewLeg(nearB), Config{})
		if res.Reason != wire.IdleTimeout || res.By != Relay || res.Duration < stallTimeout || res.Duration > stallTimeout+time.Minute {
			t.Errorf("got %+v", res)
		}
		a.Close()
		b.Close()
	})
}

// One end that does not read for an hour is its own business.
func TestOneSideDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nearA := net.Pipe()
		b, nearB := net.Pipe()
		done := make(chan Result)
		go func() { done <- Run(context.Background(), NewLeg(nearA), NewLeg(nearB), Config{Dead: -1}) }()
		message := ws.AppendHeader(nil, ws.Header{Fin: true, Opcode: ws.OpBinary, Masked: true, Len: 1000})
		go a.Write(append(message, make([]byte, 1000)...))
		select {
		case res := <-done:
			t.Errorf("ended: %+v", res)
		case <-time.After(time.Hour):
			a.Close()
			b.Close()
			<-done
		}
	})
}
