package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/signaler"
)

const (
	// Method is the name of the direct method that carries a signal.
	Method = "Bridge"
	// Property marks a cloud-to-device message as a signal; its value is PropertyValue.
	Property      = "bridge-signal"
	PropertyValue = "v1"
)

// Statuses of a direct method's answer. A refused signal and one that came when
// too many waited say {"code","message"} besides.
const (
	StatusAccepted = 200
	StatusRefused  = 409
	StatusUnknown  = 501 // no method of this agent
	StatusBusy     = 503
)

const (
	// maxWaiting is how many deliveries wait for their turn. A handler takes
	// microseconds, so there are some only while the network takes no answers.
	maxWaiting = 256
	// maxBusy is how many calls wait to be told that too many wait.
	maxBusy = 256
)

// A delivery is a signal on its way to the handler.
type delivery struct {
	payload []byte
	method  bool
	rid     string // of a method
	ack     func() // of a message
}

// An answer is what a method gets that the handler never sees.
type answer struct {
	rid    string
	status int
	body   any
}

// An inbox takes what paho receives and hands it on, one delivery after the other.
// receive runs on paho's only reading goroutine: were it to wait for anything, no
// ping and no acknowledgement would be read any more.
type inbox struct {
	l       *link
	waiting chan delivery
	others  chan answer
	over    chan struct{} // closed when the connection has ended
	work    sync.WaitGroup

	mu     sync.Mutex // guards the two below
	n      int        // packets that paho has and receive has not, deliveries and answers
	atIdle chan struct{}
}

func (b *inbox) init(l *link) {
	b.l, b.over = l, make(chan struct{})
	b.waiting, b.others = make(chan delivery, maxWaiting), make(chan answer, maxBusy)
}

// start may come after the first packets.
func (b *inbox) start(ctx context.Context, h signaler.Handler) {
	b.work.Go(func() { b.deliverAll(ctx, h) })
	b.work.Go(b.answerOthers)
}

// stop waits for both. It is called when paho calls receive no more.
func (b *inbox) stop() {
	close(b.over)
	b.work.Wait()
}

// count adds to what is under way.
func (b *inbox) count(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += n
	if b.n == 0 && b.atIdle != nil {
		close(b.atIdle)
		b.atIdle = nil
	}
}

// idle is closed when nothing is under way.
func (b *inbox) idle() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan struct{})
	if b.n == 0 {
		close(c)
	} else {
		b.atIdle = c
	}
	return c
}

// receive is paho's callback for everything.
func (b *inbox) receive(_ mqtt.Client, m mqtt.Message) {
	defer b.count(-1) // since it was read
	s := b.l.s
	if name, rid, ok := cutMethod(m.Topic()); ok {
		m.Ack() // whatever happens: a caller waits for the answer, not for this
		b.call(name, rid, m.Payload())
		return
	}
	props, ok := cutMessage(m.Topic())
	if !ok || s.cfg.ModuleID != "" || !parseBag(props).is(Property, PropertyValue) {
		m.Ack()
		s.stats.foreignMessages.Add(1)
		s.occasionally(&s.told.foreign, "a message that is no signal is thrown away; a program that wants its messages needs this device's connection for itself, "+
			"and the agent a module identity or a lent connection")
		return
	}
	b.count(1)
	select {
	case b.waiting <- delivery{payload: m.Payload(), ack: m.Ack}:
	default:
		b.count(-1)
		m.Ack()
		s.stats.dropped.Add(1)
		s.occasionally(&s.told.dropped, "a signal is dropped: too many wait")
	}
}

// call sorts a direct method.
func (b *inbox) call(name, rid string, payload []byte) {
	s := b.l.s
	if name != Method {
		s.stats.foreignMethods.Add(1)
		b.answerOther(answer{rid, StatusUnknown, signaler.Refusal{
			Code: "unknown_method", Message: fmt.Sprintf("this is the bridge agent, whose only method is %s", Method),
		}})
		return
	}
	b.count(1)
	select {
	case b.waiting <- delivery{payload: payload, method: true, rid: rid}:
	default:
		b.count(-1)
		s.stats.dropped.Add(1)
		s.occasionally(&s.told.dropped, "a signal is refused: too many wait")
		b.answerOther(answer{rid, StatusBusy, signaler.Refusal{Code: "busy", Message: "too many signals wait on this device; try again"}})
	}
}

func (b *inbox) answerOther(a answer) {
	b.count(1)
	select {
	case b.others <- a:
	default:
		b.count(-1) // a flood; its caller hears of the time-out
	}
}

// deliverAll hands the deliveries to the handler until the connection has ended,
// and then the messages that are left: they need no connection for their answer,
// and the hub may keep a message that was not acknowledged longer than it lives.
// Methods that are left have failed for their callers, who call again.
func (b *inbox) deliverAll(ctx context.Context, h signaler.Handler) {
	for !b.isOver() {
		select {
		case d := <-b.waiting:
			b.deliver(ctx, h, d)
		case <-b.over:
		}
	}
	for {
		select {
		case d := <-b.waiting:
			if !d.method && ctx.Err() == nil {
				b.deliver(ctx, h, d)
			}
		default:
			return
		}
	}
}

func (b *inbox) isOver() bool {
	select {
	case <-b.over:
		return true
	default:
		return false
	}
}

func (b *inbox) deliver(ctx context.Context, h signaler.Handler, d delivery) {
	defer b.count(-1)
	b.l.s.stats.signals.Add(1)
	no := h(ctx, signaler.Delivery{Payload: d.payload, Answers: d.method})
	switch {
	case !d.method:
		d.ack()
	case no != nil:
		b.answer(answer{d.rid, StatusRefused, no})
	default:
		b.answer(answer{d.rid, StatusAccepted, struct{}{}})
	}
}

func (b *inbox) answerOthers() {
	for {
		select {
		case a := <-b.others:
			b.answer(a)
			b.count(-1)
		case <-b.over:
			return
		}
	}
}

// answer sends a method's answer, at QoS 0: one that is lost with its connection
// is of no use on the next, so there is nothing to wait for.
func (b *inbox) answer(a answer) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a.body); err != nil {
		body.WriteString("{}") // unreachable: strings in structs
	}
	token := b.l.client.Publish(fmt.Sprintf("$iothub/methods/res/%d/?$rid=%s", a.status, a.rid), 0, false, bytes.TrimSpace(body.Bytes()))
	select {
	case <-token.Done():
		if err := token.Error(); err != nil {
			b.l.s.log.Debug("an answer was not sent", "error", b.l.why(err))
		}
	case <-b.over:
	}
}
