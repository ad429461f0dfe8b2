package pump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// Config is how long a pump may live, and how it keeps its legs alive. Zero
// means the default for Ping and Dead, and no cap for the rest.
type Config struct {
	Ping        time.Duration // between pings on each leg; 0: 15 s; < 0: never
	Dead        time.Duration // without a byte while one was wanted; 0: 35 s; < 0: never
	Idle        time.Duration // without payload in either direction; 0: no cap
	MaxDuration time.Duration // of the pump; 0: no cap
	MaxBytes    int64         // of payload, both directions together; 0: no cap
}

// CloseTimeout is how long a side has to answer a close frame.
const CloseTimeout = 5 * time.Second

// Result is how a pump ended.
type Result struct {
	Reason    wire.Code
	By        Side   // who caused it; Relay for caps and the context
	CloseCode int    // of the close frame that a side sent, when Reason is Done
	Text      string // the words of that close frame, or of the fault
	// Payload bytes passed on.
	ToDevice, ToRequester int64
	Duration              time.Duration
}

// A Side is one of the two ends, or the relay between them.
type Side string

// The sides.
const (
	Requester Side = "requester"
	Device    Side = "device"
	Relay     Side = "relay"
)

// A Stop is the context's cause when it carries the close code and words for
// both sides: draining, a kill.
type Stop struct {
	Code wire.Code
	Text string
}

func (s *Stop) Error() string { return string(s.Code) + ": " + s.Text }

type pump struct {
	cfg      Config
	start    time.Time
	lastData atomic.Int64 // ns since start
	total    atomic.Int64 // payload bytes, when they are capped
	legs     [2]*Leg      // requester, device
	flows    [2]flow
	flowing  atomic.Int32 // flows that are not over
	ended    func(Result)
	forget   func() bool // the context

	mu      sync.Mutex // guards the five below; never held during I/O
	decided bool       // result is
	result  Result
	timer   *time.Timer
	pinged  time.Duration // since start
	over    atomic.Bool   // nothing is passed on any more: read and throw away; set under mu
}

// Run joins two legs until both directions have ended, and closes both. It owns
// them from the call on. When ctx ends, both sides get the close code of a *Stop
// cause, or of wire.Internal.
func Run(ctx context.Context, requester, device *Leg, cfg Config) Result {
	ended := make(chan Result)
	Start(ctx, requester, device, cfg, func(r Result) { ended <- r })
	return <-ended
}

// Start is Run that does not wait: the pump's last goroutine calls ended. A goroutine that
// waits for the pump would be a third of its goroutines, for as long as a bridge is open.
func Start(ctx context.Context, requester, device *Leg, cfg Config, ended func(Result)) {
	if cfg.Ping == 0 {
		cfg.Ping = ws.DefaultPing
	}
	if cfg.Dead == 0 {
		cfg.Dead = ws.DefaultDead
	}
	p := &pump{cfg: cfg, start: time.Now(), legs: [2]*Leg{requester, device}, ended: ended}
	requester.side, device.side = Requester, Device
	for _, leg := range p.legs {
		leg.start, leg.heard = p.start, make(chan struct{})
		leg.pumped.Store(true)
	}
	p.mu.Lock()
	p.timer = time.AfterFunc(time.Hour, p.keep)
	p.schedule(0)
	p.mu.Unlock()
	p.forget = context.AfterFunc(ctx, func() { p.stop(context.Cause(ctx)) })

	p.flows = [2]flow{{p: p, src: requester, dst: device}, {p: p, src: device, dst: requester}}
	p.flowing.Store(int32(len(p.flows)))
	for i := range p.flows {
		go p.flows[i].run()
	}
}

// finish closes both legs, and tells how it was.
func (p *pump) finish() {
	p.forget()
	var wg sync.WaitGroup
	wg.Go(p.legs[0].finish) // which may have to wait for a peer that does not read
	p.legs[1].finish()
	wg.Wait()
	p.mu.Lock() // the timer and the context may still look
	p.timer.Stop()
	res := p.result
	p.mu.Unlock()
	res.ToDevice, res.ToRequester = p.legs[1].Passed(), p.legs[0].Passed()
	res.Duration = time.Since(p.start)
	p.ended(res)
}

// goneGrace is how long the pump waits where there is little hope: after a failed
// write for the reader of the same leg, which may find a close frame that the
// peer sent before it went; and for a dead peer to answer its close frame.
const goneGrace = time.Second

var errClosed = errors.New("close frame")

// A flow is one direction: frames from src to dst.
type flow struct {
	p        *pump
	src, dst *Leg
	in       reader
}

// run passes frames on until src's close frame has been passed on, or the pump is over and
// src has nothing more to say.
func (f *flow) run() {
	err := f.src.frames(&f.in, f)
	if err == errStill {
		go f.run()
		return
	}
	f.over(err)
}

// errStill: frames have been passed on before, and now the peer only shows that it lives. A new
// goroutine waits for it: a stack that has grown does not shrink, and idle bridges are many.
var errStill = errors.New("nothing is passed on")

// over is the end of a direction, and perhaps of the pump.
func (f *flow) over(err error) {
	p, src := f.p, f.src
	close(src.heard)
	switch {
	case err == errClosed:
	case ws.IsProtocolError(err):
		p.broken(src, err)
		src.drain()
	default:
		p.lost(src, err)
	}
	p.mu.Lock() // it is set before goodbye is said
	over := p.over.Load()
	p.mu.Unlock()
	if over { // and said so to src; a browser waits for the end of the connection, not for the other side's
		src.finish()
	}
	if p.flowing.Add(-1) == 0 {
		p.finish()
	}
}

// take passes on what src has read: frames with some payload, then a control frame or nil.
func (f *flow) take(out []byte, payload int64, c *control) error {
	p, src, dst := f.p, f.src, f.dst
	if len(out) > 0 && p.mayPass(payload) {
		if err := dst.write(out, payload); err != nil {
			p.gone(dst, err)
		}
	}
	if c != nil && c.op == ws.OpPing {
		src.post(ws.OpPong, c.payload)
	}
	if c != nil && c.op == ws.OpClose {
		return p.closed(src, dst, c.payload)
	}
	return nil
}

// mayPass counts payload that is about to be passed on.
func (p *pump) mayPass(n int64) bool {
	if p.over.Load() {
		return false
	}
	if n > 0 && p.cfg.Idle > 0 {
		p.lastData.Store(int64(time.Since(p.start)))
	}
	if n > 0 && p.cfg.MaxBytes > 0 && p.total.Add(n) > p.cfg.MaxBytes {
		p.end(Result{Reason: wire.MaxBytes, By: Relay, Text: fmt.Sprintf("%d bytes", p.cfg.MaxBytes)})
		return false
	}
	return true
}

// closed passes src's close frame on.
func (p *pump) closed(src, dst *Leg, payload []byte) error {
	code, reason, err := ws.ParseClose(payload)
	if err != nil {
		return err
	}
	src.gotClose.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.decided {
		p.decided = true
		p.result = Result{Reason: wire.Done, By: src.side, CloseCode: code, Text: reason}
		// dst's direction goes on until its answer, which closes src in turn.
		src.deadline()
		dst.deadline()
	}
	dst.post(ws.OpClose, payload)
	return errClosed
}

// gone ends the pump because leg cannot be written to.
func (p *pump) gone(leg *Leg, err error) {
	if !p.over.Load() {
		t := time.NewTimer(goneGrace)
		defer t.Stop()
		select {
		case <-leg.heard:
		case <-t.C:
		}
	}
	p.lost(leg, err)
}

// broken ends the pump because src broke RFC 6455.
func (p *pump) broken(src *Leg, err error) {
	p.end(Result{Reason: wire.ProtocolErr, By: src.side, Text: err.Error()})
}

// lost ends the pump because a leg's connection failed.
func (p *pump) lost(leg *Leg, err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the connection ended without a close frame")
	}
	p.end(Result{Reason: wire.PeerLost, By: leg.side, Text: err.Error()})
}

func (p *pump) stop(cause error) {
	res := Result{Reason: wire.Internal, By: Relay, Text: "the node stops"}
	if s := (*Stop)(nil); errors.As(cause, &s) {
		res.Reason, res.Text = s.Code, s.Text
	}
	p.end(res)
}

// end decides how the pump ended, unless that is decided, and says goodbye to
// both sides. It does not block.
func (p *pump) end(res Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(res)
}

func (p *pump) endLocked(res Result) {
	if p.over.Load() {
		return
	}
	p.over.Store(true)
	if !p.decided {
		p.decided = true
		p.result = res
	}
	for _, leg := range p.legs {
		payload := ws.AppendClose(nil, p.result.CloseCode, "")
		if p.result.Reason != wire.Done {
			payload = ws.AppendClose(nil, closeCode(p.result.Reason), goodbye(p.result, leg.side))
		} else if leg.said() {
			continue // it has had its time
		} // else its close frame was never answered by the other side: the relay does
		timeout := CloseTimeout
		if p.result.Reason == wire.PeerDead && p.result.By == leg.side {
			timeout = goneGrace // it has been silent for long enough
		}
		leg.conn.SetDeadline(time.Now().Add(timeout))
		leg.post(ws.OpClose, payload)
	}
}

// closeCode is the number for an open bridge. The table's for Draining is the one
// of a requester that could not connect; who was connected is to dial again.
func closeCode(c wire.Code) int {
	switch n := c.Row().Close; {
	case c == wire.Draining:
		return wire.CloseRestart
	case n == 0: // not meant for an open bridge; without a number the reason would be lost
		return wire.CloseInternal
	default:
		return n
	}
}

// goodbye is the text of a close frame that the relay itself sends. Errors of
// one side's connection are not for the other: addresses are in them.
func goodbye(res Result, to Side) string {
	r := wire.Reason{Code: res.Reason, Text: res.Text}
	switch res.Reason {
	case wire.PeerLost:
		r.Text = fmt.Sprintf("the %s's connection ended without a close frame", res.By)
	case wire.PeerDead:
		r.Text = fmt.Sprintf("the %s went silent", res.By)
	case wire.ProtocolErr:
		if to != res.By {
			r.Text = fmt.Sprintf("the %s broke the WebSocket protocol", res.By)
		}
	}
	return r.String()
}
