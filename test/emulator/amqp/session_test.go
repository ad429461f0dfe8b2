package amqp

import (
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
)

func TestIncomingWindow(t *testing.T) {
	withLinks(t, Config{Window: 10}, func(p *wirePeer) {
		p.hub.deliver = func(*Delivery) {}
		for i := range uint32(5) {
			p.message(i, "x")
		}
		if f := next[*flow](p); *f.nextIncomingID != 5 || f.incomingWindow != 10 || f.handle != nil {
			t.Errorf("got %+v", f)
		}
		p.none()
	})
	// A peer that overruns the window, since it does not wait for the flow.
	opened(t, Config{Window: 1}, func(p *wirePeer) {
		s := p.hub.conn.sessions[0]
		p.hub.conn.mu.Lock()
		s.incomingWindow = 0
		p.hub.conn.mu.Unlock()
		p.send(0, &transfer{handle: 0, deliveryID: u32(0)})
		p.wantError(next[*end](p).err, CondWindowViolation)
	})
}

func TestOutgoingWindowAndCredit(t *testing.T) {
	withLinks(t, Config{FirstID: 1<<32 - 3}, func(p *wirePeer) {
		s := p.hub.senders[0]
		var outcomes []Outcome
		push := func(want error) {
			t.Helper()
			if err := s.Push(&Message{Value: "v"}, func(o Outcome) { outcomes = append(outcomes, o) }); err != want {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
		push(ErrNoCredit)
		// Credit for six, and room for two: counted from our first id, as the peer has
		// seen nothing yet.
		p.send(0, &flow{incomingWindow: 2, handle: u32(1), deliveryCount: u32(1<<32 - 3), linkCredit: u32(6)})
		synctest.Wait()
		for range 6 {
			push(nil)
		}
		push(ErrNoCredit)
		for i := range uint32(2) {
			if f := next[*transfer](p); *f.deliveryID != 1<<32-3+i || f.more || *f.settled {
				t.Errorf("got %+v", f)
			}
		}
		p.none()
		// One of the two was not yet seen: there is room for two more.
		p.send(0, &flow{nextIncomingID: u32(1<<32 - 2), incomingWindow: 3})
		next[*transfer](p)
		next[*transfer](p)
		p.none()
		p.send(0, &flow{nextIncomingID: u32(1), incomingWindow: 1 << 31})
		next[*transfer](p)
		next[*transfer](p)
		// One range over the wrap, and far beyond.
		p.send(0, &disposition{role: roleReceiver, first: 1<<32 - 3, last: u32(0), settled: true, state: Accepted{}.state()})
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(1<<32 - 1), settled: true, state: Rejected{}.state()})
		synctest.Wait()
		want := []Outcome{Accepted{}, Accepted{}, Accepted{}, Accepted{}, Rejected{}, Rejected{}}
		if !reflect.DeepEqual(outcomes, want) {
			t.Errorf("got %v", outcomes)
		}
		p.none()
	})
}

// TestSettlesSecond: the peer's outcome waits for our word, ours for the peer's.
func TestSettlesSecond(t *testing.T) {
	opened(t, Config{}, func(p *wirePeer) {
		second := uint8(modeRcvSecond)
		p.send(0, &attach{name: "in", handle: 0, role: roleSender, rcvSettleMode: &second, target: terminus(codeTarget, "/in")})
		if a := next[*attach](p); *a.rcvSettleMode != modeRcvSecond {
			t.Errorf("got %+v", a)
		}
		next[*flow](p)
		p.message(4, "x")
		if d := next[*disposition](p); d.settled || d.first != 4 || d.role != roleReceiver || !Equal(d.state, Accepted{}.state()) {
			t.Errorf("got %+v", d)
		}
		if n := len(p.hub.conn.sessions[0].received); n != 1 {
			t.Errorf("%d deliveries are kept", n)
		}
		p.send(0, &disposition{role: roleSender, first: 0, last: u32(1 << 31), settled: true})
		synctest.Wait()
		if n := len(p.hub.conn.sessions[0].received); n != 0 {
			t.Errorf("%d deliveries are kept", n)
		}

		p.send(0, &attach{name: "out", handle: 1, role: roleReceiver, rcvSettleMode: &second, source: terminus(codeSource, "/out")})
		next[*attach](p)
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10)})
		synctest.Wait()
		outcomes := 0
		for range 4 {
			if err := p.hub.senders[0].Push(&Message{Value: "v"}, func(Outcome) { outcomes++ }); err != nil {
				t.Fatal(err)
			}
			next[*transfer](p)
		}
		p.send(0, &disposition{role: roleReceiver, first: 1, state: Accepted{}.state()})
		if d := next[*disposition](p); d.role != roleSender || !d.settled || d.first != 1 || *d.last != 1 {
			t.Errorf("got %+v", d)
		}
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(9), state: Described{uint64(codeReceived), List{uint32(0), uint64(0)}}})
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(9), state: Rejected{&Error{Condition: "x"}}.state()})
		// 1 is settled, so there are two ranges.
		if d := next[*disposition](p); d.first != 0 || *d.last != 0 || !Equal(d.state, Rejected{}.state()) {
			t.Errorf("got %+v", d)
		}
		if d := next[*disposition](p); d.first != 2 || *d.last != 3 {
			t.Errorf("got %+v", d)
		}
		p.none()
		if outcomes != 4 {
			t.Errorf("got %d outcomes", outcomes)
		}
	})
}

func TestSettledAtOnce(t *testing.T) {
	opened(t, Config{}, func(p *wirePeer) {
		settled := uint8(modeSettled)
		p.send(0, &attach{name: "out", handle: 1, role: roleReceiver, sndSettleMode: &settled, source: terminus(codeSource, "/out")})
		next[*attach](p)
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10)})
		synctest.Wait()
		var got Outcome
		p.hub.senders[0].Push(&Message{Value: "v"}, func(o Outcome) { got = o })
		if f := next[*transfer](p); !*f.settled {
			t.Errorf("got %+v", f)
		}
		p.none()
		if got != (Accepted{}) || len(p.hub.conn.sessions[0].unsettled) != 0 {
			t.Errorf("got %v", got)
		}
		p.send(0, &attach{name: "in", handle: 0, role: roleSender, target: terminus(codeTarget, "/in")})
		next[*attach](p)
		next[*flow](p)
		yes := true
		b, _ := (&Message{Data: [][]byte{[]byte("x")}}).MarshalBinary()
		for i := range uint32(1000) { // which takes credit, and gives it back at once
			p.send(0, &transfer{handle: 0, deliveryID: u32(i), settled: &yes}, b...)
		}
		synctest.Wait()
		if len(p.hub.got) != 1000 {
			t.Errorf("got %d messages", len(p.hub.got))
		}
	})
}

func TestDefaultOutcome(t *testing.T) {
	opened(t, Config{}, func(p *wirePeer) {
		source := List{"/out", nil, nil, nil, nil, nil, nil, nil, Modified{DeliveryFailed: true}.state()}
		p.send(0, &attach{name: "a", handle: 0, role: roleReceiver, source: Described{uint64(codeSource), source}})
		p.send(0, &attach{name: "b", handle: 1, role: roleReceiver, source: terminus(codeSource, "/out")})
		next[*attach](p)
		next[*attach](p)
		got := make([]Outcome, 2)
		for i := range uint32(2) {
			p.send(0, &flow{incomingWindow: 100, handle: u32(i), deliveryCount: u32(0), linkCredit: u32(1)})
			synctest.Wait()
			p.hub.senders[i].Push(&Message{Value: "v"}, func(o Outcome) { got[i] = o })
			next[*transfer](p)
		}
		p.send(0, &disposition{role: roleReceiver, first: 0, last: u32(1), settled: true})
		synctest.Wait()
		if !reflect.DeepEqual(got, []Outcome{Modified{DeliveryFailed: true}, Released{}}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestManyFramesIn(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		b, _ := (&Message{Data: [][]byte{[]byte("hello")}}).MarshalBinary()
		for i, c := range b { // a byte a frame, with the id in the first only
			f := &transfer{handle: 0, more: i < len(b)-1}
			if i == 0 {
				f.deliveryID = u32(0)
			}
			p.send(0, f, c)
		}
		next[*disposition](p)
		p.send(0, &transfer{handle: 0, deliveryID: u32(1), more: true}, b[:3]...)
		p.send(0, &transfer{handle: 0, aborted: true})
		p.message(2, "next")
		next[*disposition](p)
		if !reflect.DeepEqual(p.hub.got, []string{"hello", "next"}) {
			t.Errorf("got %q", p.hub.got)
		}
		p.send(0, &transfer{handle: 0, deliveryID: u32(3)}, 1, 2, 3)
		d := next[*disposition](p)
		if o, err := readOutcome(d.state); err != nil || o.(Rejected).Err.Condition != CondDecode || !d.settled {
			t.Errorf("got %+v", d)
		}
		p.message(4, "alive")
		next[*disposition](p)
	})
}

func TestDrainAndEcho(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		p.hub.credit = func(s *Sender) {
			if err := s.Push(&Message{Value: "v"}, nil); err != nil {
				t.Error(err)
			}
		}
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10), drain: true})
		next[*transfer](p)
		if f := next[*flow](p); *f.linkCredit != 0 || *f.deliveryCount != 10 || !f.drain || *f.handle != 1 {
			t.Errorf("got %+v", f)
		}
		p.hub.credit = nil
		p.send(0, &flow{incomingWindow: 100, echo: true})
		if f := next[*flow](p); f.handle != nil || f.nextOutgoingID != 1 {
			t.Errorf("got %+v", f)
		}
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(10), linkCredit: u32(3), echo: true})
		if f := next[*flow](p); *f.linkCredit != 3 || *f.deliveryCount != 10 || *f.available != 0 {
			t.Errorf("got %+v", f)
		}
		p.send(0, &flow{handle: u32(0), deliveryCount: u32(60), echo: true}) // the sender gives 60 credits back
		if f := next[*flow](p); *f.linkCredit != 100 || *f.deliveryCount != 60 {
			t.Errorf("got %+v", f)
		}
	})
}

func TestCreditIn(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		var kept []*Delivery
		p.hub.deliver = func(d *Delivery) { kept = append(kept, d) }
		for i := range uint32(100) {
			p.message(i, "x")
		}
		p.none() // nothing is settled: no credit
		for _, d := range kept {
			d.Settle(Released{})
		}
		granted := uint32(0)
		for range 100 {
			switch f := (<-p.frames).body.(type) {
			case *disposition:
			case *flow:
				granted = *f.linkCredit
			}
		}
		if granted < 50 {
			t.Errorf("credit %d", granted)
		}
		kept[0].Settle(Accepted{})
		p.hub.receivers[0].SetCredit(0)
		synctest.Wait()
	})
}

func TestDetachAndStealing(t *testing.T) {
	withLinks(t, Config{}, func(p *wirePeer) {
		p.send(0, &flow{incomingWindow: 100, handle: u32(1), deliveryCount: u32(0), linkCredit: u32(10)})
		synctest.Wait()
		var got []Outcome
		p.hub.senders[0].Push(&Message{Value: "v"}, func(o Outcome) { got = append(got, o) })
		next[*transfer](p)
		p.send(0, &attach{name: "out", handle: 2, role: roleReceiver, source: terminus(codeSource, "/out")})
		p.wantError(next[*detach](p).err, CondStolen)
		next[*attach](p)
		p.send(0, &detach{handle: 1, closed: true})
		p.none()
		if len(got) != 1 || got[0] != nil {
			t.Errorf("got %v", got)
		}
		p.send(0, &detach{handle: 0, closed: true, err: &Error{Condition: "x"}})
		if d := next[*detach](p); d.handle != 0 || !d.closed || d.err != nil {
			t.Errorf("got %+v", d)
		}
		p.hub.senders[1].Detach(nil)
		if d := next[*detach](p); d.handle != 2 || d.err != nil {
			t.Errorf("got %+v", d)
		}
		p.send(0, &end{})
		next[*end](p)
		p.send(0, &closing{})
		next[*closing](p)
		p.end()
		if len(p.hub.detached) != 3 || len(p.hub.closed) != 1 || p.hub.closed[0] != nil || p.err != nil {
			t.Errorf("got %v, %v, %v", p.hub.detached, p.hub.closed, p.err)
		}
	})
}

// TestHandlersThatInterfere: a handler may end a link, or all, while it is asked.
func TestHandlersThatInterfere(t *testing.T) {
	in := &attach{name: "in", handle: 3, role: roleSender, target: terminus(codeTarget, "/in"), properties: Map{{Symbol("p"), "v"}}}
	with := func(name string, answer func(*Receiver) error, then func(*wirePeer)) {
		t.Run(name, func(t *testing.T) {
			opened(t, Config{}, func(p *wirePeer) {
				p.hub.attach = answer
				p.send(0, in)
				then(p)
			})
		})
	}
	with("says no", func(r *Receiver) error {
		if v, _ := r.Properties().Get("p"); r.Name() != "in" || r.Channel() != 0 || r.Conn() == nil || r.Address() != "/in" || v != "v" {
			t.Errorf("got %q, %d, %v", r.Name(), r.Channel(), r.Properties())
		}
		return errors.New("broken")
	}, func(p *wirePeer) {
		if a := next[*attach](p); a.source != nil || a.target != nil || a.name != "in" || a.role != roleReceiver {
			p.Errorf("got %+v", a)
		}
		if d := next[*detach](p); d.err.Condition != CondInternal || d.err.Description != "broken" || !d.closed || d.handle != 3 {
			p.Errorf("got %+v", d)
		}
		p.send(0, &detach{handle: 3, closed: true})
		p.none()
		if len(p.hub.detached) != 0 {
			p.Error("Detached was called for a link that was refused")
		}
	})
	with("detaches", func(r *Receiver) error { r.Detach(&Error{Condition: "x:y"}); return nil }, func(p *wirePeer) {
		if a := next[*attach](p); a.target == nil {
			p.Errorf("got %+v", a)
		}
		p.wantError(next[*detach](p).err, "x:y")
		p.none()
		if len(p.hub.detached) != 1 {
			p.Errorf("got %v", p.hub.detached)
		}
	})
	for name, answer := range map[string]error{"closes": nil, "closes, and says no": errors.New("no")} {
		with(name, func(r *Receiver) error { r.Conn().CloseWith(nil); return answer }, func(p *wirePeer) {
			next[*closing](p)
			p.send(0, &closing{})
			p.end()
			if want := map[bool]int{true: 1}[answer == nil]; len(p.hub.detached) != want {
				p.Errorf("got %v", p.hub.detached)
			}
		})
	}
	with("cuts", func(r *Receiver) error { r.Conn().Cut(); return nil }, func(p *wirePeer) {
		p.end()
		if len(p.hub.detached) != 1 {
			p.Errorf("got %v", p.hub.detached)
		}
	})
}
