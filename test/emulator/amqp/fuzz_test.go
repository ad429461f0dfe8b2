package amqp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// seeds are bytes of good frames, of all kinds.
func seeds(add func([]byte)) {
	message, _ := (&Message{
		Header: &Header{DeliveryCount: 1}, Annotations: Map{{Symbol("a"), Timestamp(1)}},
		Properties:            &Properties{MessageID: UUID{1}, To: "/devices/d/messages/devicebound", CorrelationID: "c"},
		ApplicationProperties: Map{{"iothub-ack", "full"}}, Data: [][]byte{[]byte("x")},
	}).MarshalBinary()
	id := uint32(0)
	for _, f := range []frame{
		{},
		{body: &open{containerID: "c", hostname: "h", maxFrameSize: u32(512), idleTimeOut: u32(1000), desired: []Symbol{"a", "b"}, properties: Map{{Symbol("k"), "v"}}}},
		{body: &begin{incomingWindow: 10, outgoingWindow: 10}},
		{body: &attach{name: "in", role: roleSender, source: terminus(codeSource, ""), target: terminus(codeTarget, "/in"), initialDeliveryCount: &id}},
		{body: &attach{name: "out", handle: 1, role: roleReceiver, source: terminus(codeSource, "/out"), maxMessageSize: 1000, desired: []Symbol{"a"}}},
		{body: &flow{nextIncomingID: &id, incomingWindow: 10, outgoingWindow: 10, handle: u32(1), deliveryCount: &id, linkCredit: u32(5), drain: true, echo: true}},
		{body: &transfer{deliveryID: &id, deliveryTag: []byte{1}, more: true, state: Accepted{}.state()}, payload: message[:5]},
		{body: &transfer{}, payload: message[5:]},
		{body: &disposition{role: roleReceiver, last: u32(1<<32 - 1), settled: true, state: Rejected{&Error{Condition: "c", Description: "d", Info: Map{{Symbol("i"), int32(1)}}}}.state()}},
		{body: &disposition{state: Modified{true, true, Map{{Symbol("a"), nil}}}.state()}},
		{body: &detach{handle: 1, closed: true, err: &Error{Condition: "c"}}},
		{body: &end{}}, {body: &closing{&Error{Condition: "c"}}},
		{kind: frameTypeSASL, body: &saslMechanisms{[]Symbol{"PLAIN"}}},
		{kind: frameTypeSASL, body: &saslInit{mechanism: "PLAIN", response: []byte("\x00u\x00p")}},
		{kind: frameTypeSASL, body: &saslBytes{codeSASLResponse, []byte("x")}},
		{kind: frameTypeSASL, body: &saslOutcome{}},
	} {
		b, err := appendFrame(nil, f)
		if err != nil {
			panic(err)
		}
		add(b)
	}
}

// FuzzFrame: what parses can be encoded, and then parses as the same.
func FuzzFrame(f *testing.F) {
	seeds(func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := readFrame(bytes.NewReader(in), 1<<16)
		if err != nil {
			return
		}
		once, err := appendFrame(nil, got)
		if err != nil {
			t.Fatalf("%+v cannot be encoded: %v", got.body, err)
		}
		again, err := readFrame(bytes.NewReader(once), 1<<20)
		if err != nil {
			t.Fatalf("%x became %x: %v", in, once, err)
		}
		if twice, err := appendFrame(nil, again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x, then %x; %v", in, once, twice, err)
		}
		if p, ok := got.body.(*disposition); ok {
			readOutcome(p.state)
		}
	})
}

// FuzzMessage is FuzzFrame for messages.
func FuzzMessage(f *testing.F) {
	for _, m := range []Message{
		{Value: List{true, uint32(1), "x", Symbol("y")}}, {Sequences: []List{{}}}, {Data: [][]byte{nil}, Footer: Map{}},
		{Header: &Header{}, Properties: &Properties{MessageID: "m", AbsoluteExpiryTime: -1}, ApplicationProperties: Map{{"a", Symbols("b")}}},
	} {
		b, err := m.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var m Message
		if m.UnmarshalBinary(in) != nil {
			return
		}
		once, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var again Message
		if err := again.UnmarshalBinary(once); err != nil {
			t.Fatalf("%x became %x: %v", in, once, err)
		}
		if twice, err := again.MarshalBinary(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x, then %x; %v", in, once, twice, err)
		}
	})
}

// fuzzHub takes every link, settles in every way, and sends as soon as it may.
type fuzzHub struct{ n int }

func (h *fuzzHub) Login(Login) error      { return nil }
func (h *fuzzHub) Open(*Conn, Peer) error { return nil }
func (h *fuzzHub) Receive(r *Receiver) (Inlet, error) {
	if r.Address() == "" {
		return nil, errors.New("nowhere")
	}
	r.SetMaxMessageSize(1000)
	return h, nil
}
func (h *fuzzHub) Send(s *Sender) (Outlet, error) { return fuzzOutlet{h, s}, nil }
func (h *fuzzHub) Closed(error)                   {}
func (h *fuzzHub) Detached(error)                 {}
func (h *fuzzHub) Deliver(d *Delivery) {
	h.n++
	d.Settle([]Outcome{Accepted{}, Released{}, Modified{}, Rejected{}}[h.n%4])
}

type fuzzOutlet struct {
	*fuzzHub
	s *Sender
}

func (o fuzzOutlet) Credit() {
	if o.n++; o.n%8 == 0 {
		o.s.Detach(nil)
	}
	o.s.Push(&Message{Data: [][]byte{make([]byte, 700)}}, func(Outcome) {
		if o.n++; o.n < 100 {
			o.s.Push(&Message{Value: "v"}, nil)
		}
	})
}

// FuzzConn: whatever a peer says, the server ends when the peer does, sends only
// frames, and does not panic.
func FuzzConn(f *testing.F) {
	all := protocolHeader(protocolAMQP)
	seeds(func(b []byte) {
		if len(b) < 6 || b[5] == frameTypeAMQP {
			all = append(all, b...)
		}
	})
	f.Add(all, false)
	f.Add(all, true)
	sasl := protocolHeader(protocolSASL)
	b, _ := appendFrame(nil, frame{kind: frameTypeSASL, body: &saslInit{mechanism: "ANONYMOUS"}})
	f.Add(append(append(sasl, b...), all...), true)
	f.Add(append(append([]byte{}, all[:len(all)/2]...), all...), false)
	f.Fuzz(func(t *testing.T, in []byte, omit bool) {
		near, far := net.Pipe()
		s := NewServer(Config{MaxFrameSize: 4096, ChannelMax: 3, HandleMax: 3, Window: 8, FirstID: 1<<32 - 2, CloseTimeout: 100 * time.Millisecond})
		s.SetOmitNextIncomingID(omit)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.ServeConn(ctx, far, new(fuzzHub))
		}()
		read := make(chan error, 1)
		go func() { read <- readAll(near) }()
		near.Write(in)
		near.Close()
		<-done
		if ctx.Err() != nil {
			t.Fatal("hangs")
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
	})
}

// readAll reads what a server sends up to its end, wherever that is.
func readAll(r io.Reader) error {
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil
		}
		if string(head[:4]) == "AMQP" {
			continue
		}
		_, err := readFrame(io.MultiReader(bytes.NewReader(head[:]), r), 4096)
		var e *Error
		if errors.As(err, &e) {
			return e
		}
		if err != nil {
			return nil
		}
	}
}
