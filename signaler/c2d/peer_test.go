package c2d

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler/credential"
)

// A peer is as little of a hub as go-amqp needs, and free to break the rules. Its
// channels have other numbers than ours.
type peer struct {
	t    *testing.T
	conn net.Conn

	deaf      atomic.Bool // answers nothing any more
	closed    atomic.Bool // we said goodbye
	stale     bool        // answers to put-token come after one to another question
	mute      bool        // no heartbeats
	omitID    bool        // leave next-incoming-id out, as Gateway v2 does
	credit    byte        // per link; 0: 100
	window    byte        // of each session; 0: 200
	put       func(text string) (status int32)
	attach    func(name []byte, address string) (refuse []byte) // a detach's error
	transfer  func(p *peer, hub uint16, id uint32)              // a message for a device; nil: accept
	links     map[uint16]map[uint32]string                      // channel, handle: address
	ids       map[uint16]uint32                                 // transfers per channel
	answerTo  uint32                                            // handle of the receiver from $cbs
	delivered uint32
	out       chan []byte
	end       func() // cuts the connection

	mu    sync.Mutex    // guards what follows
	asked []string      // tokens
	gap   time.Duration // the longest silence of ours
}

const (
	shift    = 40               // of the peer's channels
	peerIdle = 40 * time.Second // what it tells us to beat within
)

// start serves the far end of a pipe until it is closed.
func (p *peer) start(t *testing.T) (near net.Conn) {
	near, far := net.Pipe()
	p.t, p.conn = t, far
	p.links, p.ids = make(map[uint16]map[uint32]string), make(map[uint16]uint32)
	// go-amqp writes and reads in one loop per session: a peer that does not read
	// while it writes would wait for it for ever on a pipe, which holds nothing.
	p.out = make(chan []byte, 10_000)
	var work sync.WaitGroup
	work.Go(func() {
		defer close(p.out)
		p.serve()
	})
	work.Go(func() {
		defer far.Close()
		beat := time.NewTicker(peerIdle / 2)
		defer beat.Stop()
		for {
			select {
			case b, ok := <-p.out:
				if !ok {
					return
				}
				far.Write(b)
			case <-beat.C:
				if !p.mute {
					far.Write(unhex("00000008 02000000"))
				}
			}
		}
	})
	p.end = func() { near.Close(); work.Wait() }
	t.Cleanup(p.end)
	return near
}

func (p *peer) serve() {
	head := make([]byte, headerSize)
	for last := time.Now(); ; last = time.Now() {
		if _, err := io.ReadFull(p.conn, head); err != nil {
			return
		}
		p.mu.Lock()
		p.gap = max(p.gap, time.Since(last))
		p.mu.Unlock()
		if string(head[:4]) == "AMQP" {
			p.write(head)
			continue
		}
		u := make([]byte, binary.BigEndian.Uint32(head))
		copy(u, head)
		if _, err := io.ReadFull(p.conn, u[headerSize:]); err != nil {
			return
		}
		if len(u) > headerSize && !p.deaf.Load() {
			p.frame(channel(u), performative(u), u[headerSize+3:])
		}
	}
}

func (p *peer) frame(ch uint16, code byte, body []byte) {
	list, ok := fields(body)
	if !ok {
		p.t.Errorf("performative %#x of go-amqp is not a list: %x", code, body)
		return
	}
	hub := ch + shift
	switch code {
	case 0x10: // open
		p.send(0, 0x10, appendText(nil, 0xb1, "hub"), []byte{0x40}, []byte{0x40}, []byte{0x40}, next2(uint32(peerIdle.Milliseconds())))
	case codeBegin:
		p.links[ch], p.ids[ch] = make(map[uint32]string), 0
		p.send(hub, codeBegin, []byte{0x60, byte(ch >> 8), byte(ch)}, []byte{0x43}, []byte{0x52, or(p.window, 200)}, []byte{0x52, 200})
	case 0x12:
		p.attached(ch, hub, list)
	case codeTransfer:
		handle, _ := number(list[0])
		id := p.ids[ch]
		p.ids[ch]++
		if p.links[ch][handle] == "$cbs" {
			p.tokenAnswer(hub, id, body[width(body):])
		} else if p.transfer != nil {
			p.transfer(p, hub, id)
		} else {
			p.settle(hub, id, unhex(stateAccepted))
		}
	case codeDetach:
		p.send(hub, codeDetach, list[0], []byte{0x41})
	case codeEnd:
		p.send(hub, codeEnd)
	case codeClose:
		p.closed.Store(true)
		p.send(0, codeClose)
	}
}

func or(a, b byte) byte {
	if a == 0 {
		return b
	}
	return a
}

func (p *peer) attached(ch, hub uint16, list [][]byte) {
	handle, _ := number(list[1])
	if isTrue(list[2]) { // go-amqp receives
		p.answerTo = handle
		p.send(hub, 0x12, list[0], list[1], []byte{0x42}, []byte{0x40}, []byte{0x40}, list[5], list[6], []byte{0x40}, []byte{0x40}, []byte{0x43})
		return
	}
	_, target, _ := described(list[6])
	address := text(field(target, 0))
	p.links[ch][handle] = address
	p.send(hub, 0x12, list[0], list[1], []byte{0x41}, []byte{0x40}, []byte{0x40}, list[5], list[6])
	if p.attach != nil {
		if no := p.attach(list[0], address); no != nil {
			p.send(hub, codeDetach, list[1], []byte{0x41}, no)
			return
		}
	}
	p.flow(hub, list[1], or(p.credit, 100))
}

// flow grants credit.
func (p *peer) flow(hub uint16, handle []byte, credit byte) {
	next := binary.BigEndian.AppendUint32([]byte{0x70}, p.ids[hub-shift])
	if p.omitID {
		next = []byte{0x40}
	}
	p.send(hub, codeFlow, next, []byte{0x52, or(p.window, 200)}, []byte{0x43}, []byte{0x52, 200}, handle, next2(p.ids[hub-shift]), []byte{0x52, credit})
}

// seen returns the tokens that were shown, and the longest silence of ours.
func (p *peer) seen() ([]string, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked), p.gap
}

func next2(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0x70}, n) }

// settle answers a delivery, which is settled by that.
func (p *peer) settle(hub uint16, id uint32, state []byte) {
	p.send(hub, codeDisposition, []byte{0x41}, next2(id), []byte{0x40}, []byte{0x41}, state)
}

func (p *peer) tokenAnswer(hub uint16, id uint32, payload []byte) {
	p.settle(hub, id, unhex(stateAccepted))
	var m amqp.Message
	if err := m.UnmarshalBinary(payload); err != nil {
		p.t.Error(err)
		return
	}
	token, _ := m.Value.(string)
	p.mu.Lock()
	p.asked = append(p.asked, token)
	p.mu.Unlock()
	status := int32(200)
	if p.put != nil {
		status = p.put(token)
	}
	if status == 0 { // the link goes instead
		p.send(hub, codeDetach, []byte{0x43}, []byte{0x41})
		return
	}
	if p.stale {
		p.tokenStatus(hub, "another question", 500)
	}
	p.tokenStatus(hub, m.Properties.MessageID, status)
}

func (p *peer) tokenStatus(hub uint16, question any, status int32) {
	answer := amqp.Message{
		Properties:            &amqp.MessageProperties{CorrelationID: question},
		ApplicationProperties: map[string]any{"status-code": status, "status-description": "as the test wants it"},
		Value:                 "",
	}
	b, err := answer.MarshalBinary()
	if err != nil {
		p.t.Error(err)
		return
	}
	u := frame(hub, append(appendList([]byte{0, 0x53, codeTransfer}, next2(p.answerTo), next2(p.delivered), []byte{0xa0, 1, 1}, []byte{0x43}, []byte{0x42}), b...))
	p.delivered++
	p.write(u)
}

func (p *peer) write(b []byte) { p.out <- bytes.Clone(b) }

func (p *peer) send(hub uint16, code byte, list ...[]byte) {
	p.write(frame(hub, appendList([]byte{0, 0x53, code}, list...)))
}

// static is a Source of one token.
type static credential.Token

func (s static) Token(context.Context) (credential.Token, error) { return credential.Token(s), nil }

// testSignaler returns one that nobody runs.
func testSignaler(t testing.TB, change func(*Config)) *Signaler {
	t.Helper()
	cfg := Config{HostName: "hub.example", Credential: static{Text: "SharedAccessSignature x"}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// connect makes a connection to the peer, without a dial.
func connect(t *testing.T, p *peer, s *Signaler) (*connection, error) {
	t.Helper()
	near := p.start(t)
	c := newConnection()
	c.shim = newShim(near, near, time.Second, c.ended)
	t.Cleanup(c.close)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tok, _ := s.cfg.Credential.Token(ctx)
	return c, c.attach(ctx, s, tok)
}
