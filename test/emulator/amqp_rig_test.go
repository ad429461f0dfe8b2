package emulator

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/Azure/go-amqp"

	"websocketbridge/signaler/sas"
)

// An amqpLab is a hub without sockets, inside a bubble: clients of Azure's library
// speak over pipes.
type amqpLab struct {
	*testing.T
	h   *Hub
	ctx context.Context
	wg  sync.WaitGroup
}

// amqpTest runs a test on a hub with the devices pump-7, which has the module m1, and
// a/b's rest: ids that need escaping.
func amqpTest(t *testing.T, cfg Config, test func(*amqpLab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Devices = append(cfg.Devices, Device{ID: "pump-7", Modules: []Module{{ID: "m1"}}}, Device{ID: "50%#?"})
		h, err := newHub(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		l := &amqpLab{T: t, h: h, ctx: ctx}
		l.wg.Go(func() { h.keepTime(ctx) })
		defer l.wg.Wait()
		defer cancel()
		test(l)
	})
}

// policyToken is a service's token for an hour.
func (l *amqpLab) policyToken(policy string) string {
	l.Helper()
	s, err := sas.Sign("localhost", policy, l.h.policies[policy], time.Now().Add(time.Hour))
	if err != nil {
		l.Fatal(err)
	}
	return s
}

// deviceToken is an identity's token for an hour.
func (l *amqpLab) deviceToken(id identity) string {
	l.Helper()
	l.h.mu.Lock()
	r, missing := l.h.find(id)
	l.h.mu.Unlock()
	if missing != nil {
		l.Fatal(missing)
	}
	s, err := sas.Sign(sas.Resource("localhost", id.Device, id.Module), "", r.primary, time.Now().Add(time.Hour))
	if err != nil {
		l.Fatal(err)
	}
	return s
}

// pipe is a connection to the hub.
func (l *amqpLab) pipe(state *tls.ConnectionState) net.Conn {
	near, far := net.Pipe()
	l.wg.Go(func() {
		defer far.Close()
		l.h.serveAMQP(l.ctx, far, state)
	})
	return near
}

// An amqpPeer is a client.
type amqpPeer struct {
	*testing.T
	c *client.Conn
	s *client.Session
}

func (l *amqpLab) dial(opts *client.ConnOptions) *amqpPeer {
	l.Helper()
	c, err := client.NewConn(l.pipe(nil), opts)
	if err != nil {
		l.Fatal(err)
	}
	return newAMQPPeer(l.T, c)
}

func newAMQPPeer(t *testing.T, c *client.Conn) *amqpPeer {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	s, err := c.NewSession(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &amqpPeer{t, c, s}
}

// service is a connection whose token is good.
func (l *amqpLab) service() *amqpPeer {
	l.Helper()
	p := l.dial(nil)
	p.put(l.policyToken("service"))
	return p
}

// put puts a token that must be taken.
func (p *amqpPeer) put(token string) {
	p.Helper()
	if a := p.cbs(p.request("localhost", tokenSAS, token)); a.status != int32(200) {
		p.Fatalf("put-token: %+v", a)
	}
}

func (p *amqpPeer) request(name, kind, token string) *client.Message {
	to, reply := "$cbs", "cbs"
	return &client.Message{
		Properties:            &client.MessageProperties{MessageID: "r1", To: &to, ReplyTo: &reply},
		ApplicationProperties: map[string]any{"operation": "put-token", "type": kind, "name": name},
		Value:                 token,
	}
}

type cbsReply struct {
	status      any
	description string
	correlation any
}

// cbs asks $cbs, on links that live as long as the request, as amenzhinsky's library
// does.
func (p *amqpPeer) cbs(m *client.Message) cbsReply {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	in, out := p.sender("$cbs"), p.receiver("$cbs", nil)
	if err := in.Send(ctx, m); err != nil {
		p.Fatal(err)
	}
	r, err := out.Receive(ctx)
	if err != nil {
		p.Fatal(err)
	}
	if err := out.AcceptMessage(ctx, r); err != nil {
		p.Fatal(err)
	}
	a := cbsReply{status: r.ApplicationProperties["status-code"]}
	a.description, _ = r.ApplicationProperties["status-description"].(string)
	if r.Properties != nil {
		a.correlation = r.Properties.CorrelationID
	}
	in.Close(ctx)
	out.Close(ctx)
	return a
}

func (p *amqpPeer) sender(address string) *client.Sender {
	p.Helper()
	s, err := p.s.NewSender(context.Background(), address, &client.SenderOptions{IgnoreDispositionErrors: true})
	if err != nil {
		p.Fatalf("%s: %v", address, err)
	}
	return s
}

func (p *amqpPeer) receiver(address string, opts *client.ReceiverOptions) *client.Receiver {
	p.Helper()
	r, err := p.s.NewReceiver(context.Background(), address, opts)
	if err != nil {
		p.Fatalf("%s: %v", address, err)
	}
	return r
}

// message is one for pump-7.
func amqpMessage(to, id string) *client.Message {
	m := client.NewMessage([]byte("body"))
	m.Properties = &client.MessageProperties{To: &to, MessageID: id}
	return m
}

const toPump = "/devices/pump-7/messages/devicebound"

// within bounds a wait that a test expects to end, or not to.
func (l *amqpLab) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	l.Cleanup(cancel)
	return ctx
}
