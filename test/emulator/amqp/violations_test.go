package amqp

import (
	"testing"
	"testing/synctest"
)

// TestViolations of the protocol cost a link, a session or the connection; the rest
// lives.
func TestViolations(t *testing.T) {
	message, _ := (&Message{Data: [][]byte{[]byte("x")}}).MarshalBinary()
	tests := []struct {
		name string
		do   func(*wirePeer)
		end  string // detach, end or close
		want Symbol
	}{
		{"unknown channel", func(p *wirePeer) { p.send(7, &flow{}) }, "close", CondIllegalState},
		{"channel above the maximum", func(p *wirePeer) { p.send(9, &begin{}) }, "close", CondFraming},
		{"begin twice", func(p *wirePeer) { p.send(0, &begin{}) }, "close", CondIllegalState},
		{"begin with a remote channel", func(p *wirePeer) { p.send(1, &begin{remoteChannel: new(uint16)}) }, "close", CondInvalidField},
		{"open twice", func(p *wirePeer) { p.send(0, &open{containerID: "x"}) }, "close", CondIllegalState},
		{"handle above the maximum", func(p *wirePeer) { p.send(0, &attach{name: "x", handle: 9}) }, "close", CondFraming},
		{"settle mode", func(p *wirePeer) { m := uint8(3); p.send(0, &attach{name: "x", handle: 3, sndSettleMode: &m}) }, "close", CondInvalidField},
		{"source that is no list", func(p *wirePeer) { p.send(0, &attach{name: "x", handle: 3, source: "y"}) }, "close", CondDecode},
		{"outcome that is none", func(p *wirePeer) { p.send(0, &disposition{role: roleReceiver, state: "accepted"}) }, "close", CondDecode},
		{"frame too large", func(p *wirePeer) { p.write([]byte{0, 1, 0, 0, 2, 0, 0, 0}) }, "close", CondFraming},
		{"frame too small", func(p *wirePeer) { p.write([]byte{0, 0, 0, 7, 2, 0, 0, 0}) }, "close", CondFraming},
		{"body before the header's end", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 1, 0, 0, 0}) }, "close", CondFraming},
		{"body after the frame's end", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 3, 0, 0, 0}) }, "close", CondFraming},
		{"unknown type of frame", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 2, 7, 0, 0}) }, "close", CondFraming},
		{"SASL after OPEN", func(p *wirePeer) { p.write([]byte{0, 0, 0, 8, 2, 1, 0, 0}) }, "close", CondFraming},
		{"no performative", func(p *wirePeer) { p.write([]byte{0, 0, 0, 9, 2, 0, 0, 0, 0x40}) }, "close", CondDecode},
		{"field of a wrong type", func(p *wirePeer) { p.write([]byte("\x00\x00\x00\x10\x02\x00\x00\x00\x00\x53\x17\xc0\x03\x01\xa1\x00")) }, "close", CondDecode},

		{"unknown handle", func(p *wirePeer) { p.send(0, &transfer{handle: 5}) }, "end", CondUnattachedHandle},
		{"flow of an unknown handle", func(p *wirePeer) { p.send(0, &flow{handle: u32(5)}) }, "end", CondUnattachedHandle},
		{"detach of an unknown handle", func(p *wirePeer) { p.send(0, &detach{handle: 5}) }, "end", CondUnattachedHandle},
		{"handle in use", func(p *wirePeer) { p.send(0, &attach{name: "x", handle: 1}) }, "end", CondHandleInUse},
		{"transfer on a receiver", func(p *wirePeer) { p.send(0, &transfer{handle: 1, deliveryID: u32(0)}) }, "end", CondNotAllowed},
		{"window", func(p *wirePeer) {
			p.hub.deliver = func(*Delivery) {}
			for range 11 { // never to its end; the window is not renewed while links are silent
				p.send(0, &transfer{handle: 0, deliveryID: u32(0), deliveryTag: []byte{0}, more: true})
			}
		}, "", ""},

		{"no credit", func(p *wirePeer) {
			p.hub.deliver = func(*Delivery) {}
			for i := range uint32(101) {
				p.message(i, "x")
			}
		}, "detach", CondTransferLimit},
		{"no delivery id", func(p *wirePeer) { p.send(0, &transfer{handle: 0}, message...) }, "detach", CondInvalidField},
		{"delivery id in use", func(p *wirePeer) {
			p.hub.deliver = func(*Delivery) {}
			p.message(3, "x")
			p.message(3, "y")
		}, "detach", CondInvalidField},
		{"delivery id changes", func(p *wirePeer) {
			p.send(0, &transfer{handle: 0, deliveryID: u32(0), more: true}, message...)
			p.send(0, &transfer{handle: 0, deliveryID: u32(1)})
		}, "detach", CondInvalidField},
		{"message too large", func(p *wirePeer) {
			for i := range 20 {
				p.send(0, &transfer{handle: 0, deliveryID: u32(0), more: i < 19}, make([]byte, 60_000)...)
			}
		}, "detach", CondMessageSizeExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withLinks(t, Config{ChannelMax: 8, HandleMax: 8, Window: 200}, func(p *wirePeer) {
				tt.do(p)
				synctest.Wait()
				last := func() performative {
					for {
						switch f := (<-p.frames).body.(type) {
						case *flow, *disposition:
						default:
							return f
						}
					}
				}
				switch tt.end {
				case "":
					p.none()
				case "close":
					c, ok := last().(*closing)
					if !ok {
						p.Fatal("no CLOSE")
					}
					p.wantError(c.err, tt.want)
					p.send(0, &closing{})
					p.end()
				case "end":
					e, ok := last().(*end)
					if !ok {
						p.Fatal("no END")
					}
					p.wantError(e.err, tt.want)
					p.send(0, &flow{}) // late: nobody minds
					p.send(0, &end{})
					p.send(0, &begin{}) // the channel is free again
					next[*begin](p)
				case "detach":
					d, ok := last().(*detach)
					if !ok {
						p.Fatal("no DETACH")
					}
					p.wantError(d.err, tt.want)
					p.message(1000, "late") // nobody minds
					p.send(0, &detach{handle: 0, closed: true})
					p.send(0, &attach{name: "in", handle: 0, role: roleSender, target: terminus(codeTarget, "/in")})
					next[*attach](p)
				}
			})
		})
	}
}
