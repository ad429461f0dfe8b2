package c2d

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
)

// plain sends one message through go-amqp alone, as a program without the shim
// does: these tests say why the shim is there. When one of them fails, go-amqp has
// changed and a workaround may go.
func plain(t *testing.T, p *peer) error {
	t.Helper()
	near := p.start(t)
	conn, err := amqp.NewConn(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := session.NewSender(ctx, devicebound, &amqp.SenderOptions{IgnoreDispositionErrors: true})
	if err != nil {
		return err
	}
	return sender.Send(ctx, amqp.NewMessage([]byte("x")))
}

// ours sends one message through a connection.
func ours(t *testing.T, p *peer) error {
	t.Helper()
	c, err := connect(t, p, testSignaler(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return c.send(ctx, amqp.NewMessage([]byte("x")), time.Minute)
}

// TestFlowWithoutID: Gateway v2 leaves next-incoming-id out.
func TestFlowWithoutID(t *testing.T) {
	if err := plain(t, &peer{omitID: true}); err == nil {
		t.Error("go-amqp copes by itself")
	}
	if err := ours(t, &peer{omitID: true}); err != nil {
		t.Error(err)
	}
}

// TestFlowWithoutIDManyTimes: with 0 in its place, the cheap way, go-amqp stops for
// good after as many messages as the session's window holds.
func TestFlowWithoutIDManyTimes(t *testing.T) {
	p := &peer{omitID: true, window: 10, credit: 5}
	p.transfer = func(p *peer, hub uint16, id uint32) {
		p.settle(hub, id, unhex(stateAccepted))
		if (id+1)%5 == 0 {
			p.flow(hub, []byte{0x43}, 5)
		}
	}
	c, err := connect(t, p, testSignaler(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := c.send(ctx, amqp.NewMessage([]byte("x")), time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestOutcomesOfMessages: accepted is the one good outcome.
func TestOutcomesOfMessages(t *testing.T) {
	notFound := rejected("amqp:not-found", "")
	for _, tt := range []struct {
		name    string
		state   []byte
		settled byte
		want    error
		plain   bool // go-amqp alone takes it for success
	}{
		{"accepted", unhex(stateAccepted), 0x41, nil, true},
		{"accepted, not settled", unhex(stateAccepted), 0x42, nil, true},
		{"rejected", notFound, 0x41, signaler.ErrDeviceNotFound, false},
		{"rejected, not settled", notFound, 0x42, signaler.ErrDeviceNotFound, true},
		{"rejected, and no reason", unhex("00532545"), 0x41, signaler.ErrUnavailable, false},
		{"released", unhex(stateReleased), 0x41, signaler.ErrUnavailable, true},
		{"released, not settled", unhex(stateReleased), 0x42, signaler.ErrUnavailable, true},
		{"modified", unhex("00532745"), 0x41, signaler.ErrUnavailable, true},
		{"nothing", []byte{0x40}, 0x41, signaler.ErrUnavailable, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := func() *peer {
				return &peer{transfer: func(p *peer, hub uint16, id uint32) {
					p.send(hub, codeDisposition, []byte{0x41}, next2(id), []byte{0x40}, []byte{tt.settled}, tt.state)
				}}
			}
			if err := plain(t, p()); (err == nil) != tt.plain {
				t.Errorf("go-amqp alone says %v", err)
			}
			if err := ours(t, p()); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestOutcomeInTwoSteps: "received" is no outcome yet.
func TestOutcomeInTwoSteps(t *testing.T) {
	two := func() *peer {
		return &peer{transfer: func(p *peer, hub uint16, id uint32) {
			p.send(hub, codeDisposition, []byte{0x41}, next2(id), []byte{0x40}, []byte{0x42}, unhex(stateReceived))
			p.settle(hub, id, unhex(stateReleased))
		}}
	}
	if err := plain(t, two()); err != nil {
		t.Errorf("go-amqp alone says %v", err)
	}
	if err := ours(t, two()); !errors.Is(err, signaler.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// TestRejectedLeavesTheLink: go-amqp detaches after a rejection unless it is told
// not to, and then answers every later message with the first one's error.
func TestRejectedLeavesTheLink(t *testing.T) {
	p := &peer{transfer: func(p *peer, hub uint16, id uint32) {
		if id == 0 {
			p.settle(hub, id, rejected("amqp:not-found", ""))
		} else {
			p.settle(hub, id, unhex(stateAccepted))
		}
	}}
	c, err := connect(t, p, testSignaler(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.send(t.Context(), amqp.NewMessage([]byte("x")), time.Minute); !errors.Is(err, signaler.ErrDeviceNotFound) {
		t.Errorf("got %v", err)
	}
	if err := c.send(t.Context(), amqp.NewMessage([]byte("x")), time.Minute); err != nil {
		t.Errorf("the next message: %v", err)
	}
}

// TestFlowWithoutCreditIsNoPanic: go-amqp would dereference nil, in a goroutine
// where nobody can recover.
func TestFlowWithoutCreditIsNoPanic(t *testing.T) {
	p := &peer{transfer: func(p *peer, hub uint16, id uint32) {
		p.send(hub, codeFlow, next2(id), []byte{0x52, 9}, []byte{0x43}, []byte{0x52, 9}, []byte{0x43})
	}}
	if err := ours(t, p); !errors.Is(err, errLost) {
		t.Errorf("got %v", err)
	}
}

// TestDetachIsNoticedAtOnce: go-amqp tells only whoever sends next.
func TestDetachIsNoticedAtOnce(t *testing.T) {
	asked := make(chan func(*peer, uint16), 1)
	p := &peer{transfer: func(p *peer, hub uint16, id uint32) {
		p.settle(hub, id, unhex(stateAccepted))
		(<-asked)(p, hub)
	}}
	c, err := connect(t, p, testSignaler(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	e := append([]byte{0, 0x53, codeError}, appendList(nil, appendText(nil, 0xb3, "amqp:link:detach-forced"))...)
	asked <- func(p *peer, hub uint16) { p.send(hub, codeDetach, []byte{0x43}, []byte{0x41}, e) }
	if err := c.send(t.Context(), amqp.NewMessage([]byte("x")), time.Minute); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.lost():
	case <-time.After(10 * time.Second):
		t.Fatal("not noticed")
	}
	if h, ok := errors.AsType[*hubError](c.shim.reason()); !ok || h.condition != "amqp:link:detach-forced" {
		t.Errorf("got reason %v", c.shim.reason())
	}
}

// TestAttachRefused: hubs answer an attach before they refuse it.
func TestAttachRefused(t *testing.T) {
	e := append([]byte{0, 0x53, codeError}, appendList(nil, appendText(nil, 0xb3, "amqp:unauthorized-access"), appendText(nil, 0xb1, "no"))...)
	p := &peer{attach: func(_ []byte, address string) []byte {
		if address == devicebound {
			return e
		}
		return nil
	}}
	c, err := connect(t, p, testSignaler(t, nil))
	if err == nil {
		<-c.lost()
		err = c.shim.reason()
	}
	if !errors.Is(err, signaler.ErrUnauthorized) || !definite(err) {
		t.Errorf("got %v", err)
	}
}

// TestSendHonoursItsContext: without credit go-amqp's Send waits for a lock, and
// when enough messages wait, the next does for its turn.
func TestSendHonoursItsContext(t *testing.T) {
	for _, waiting := range []int{3, maxSends} { // one takes the credit, one holds the lock
		c, err := connect(t, &peer{transfer: func(*peer, uint16, uint32) {}, credit: 1}, testSignaler(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("requester left")
		long, endLong := context.WithCancel(t.Context())
		var others, wg sync.WaitGroup
		for range waiting {
			others.Go(func() { c.send(long, amqp.NewMessage([]byte("x")), time.Minute) })
		}
		for len(c.sends) < waiting {
			runtime.Gosched()
		}
		for range 2 * maxSends {
			wg.Go(func() {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
				defer cancel()
				if err := c.send(ctx, amqp.NewMessage([]byte("x")), time.Minute); !errors.Is(err, cause) {
					t.Errorf("got %v", err)
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Errorf("with %d waiting: Send does not end with its ctx", waiting)
		}
		endLong()
		<-done
		others.Wait()
		c.close()
	}
}

// TestSilence: a hub that neither answers nor begins a session is gone, long before
// its heartbeat is missed.
func TestSilence(t *testing.T) {
	c, err := connect(t, &peer{transfer: func(p *peer, _ uint16, _ uint32) { p.deaf.Store(true) }}, testSignaler(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.send(t.Context(), amqp.NewMessage([]byte("x")), 50*time.Millisecond); err != errLost {
		t.Errorf("got %v", err)
	}
	if !errors.Is(c.shim.reason(), errSilent) {
		t.Errorf("got reason %v", c.shim.reason())
	}
}

// TestSlowIsNotGone: a hub that shapes the traffic answers late. The connection stays.
func TestSlowIsNotGone(t *testing.T) {
	c, err := connect(t, &peer{transfer: func(p *peer, hub uint16, id uint32) {
		time.AfterFunc(time.Second, func() { p.settle(hub, id, unhex(stateAccepted)) })
	}}, testSignaler(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.send(t.Context(), amqp.NewMessage([]byte("x")), 50*time.Millisecond); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
}

// TestTokenRefused: the hub's status is told.
func TestTokenRefused(t *testing.T) {
	for status, want := range map[int32]error{401: signaler.ErrUnauthorized, 403: signaler.ErrUnauthorized, 429: signaler.ErrThrottled, 500: signaler.ErrUnavailable} {
		_, err := connect(t, &peer{put: func(string) int32 { return status }}, testSignaler(t, nil))
		if !errors.Is(err, want) || definite(err) != (want == signaler.ErrUnauthorized) {
			t.Errorf("%d: got %v, want %v", status, err, want)
		}
	}
}
