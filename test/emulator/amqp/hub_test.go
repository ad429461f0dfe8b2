package amqp_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/Azure/go-amqp"

	"websocketbridge/test/emulator/amqp"
)

// A hub is a handler for tests: it takes what comes to /in…, offers itself to
// receivers of /out…, and refuses the rest.
type hub struct {
	t       *testing.T
	refuse  error // of Open
	login   func(amqp.Login) error
	deliver func(*amqp.Delivery) // nil: accept
	attach  func(*amqp.Receiver)

	conns   chan *amqp.Conn
	senders chan *amqp.Sender
	credit  chan *amqp.Sender
	ended   chan error // links
	closed  chan error
}

func newHub(t *testing.T) *hub {
	return &hub{t: t, conns: make(chan *amqp.Conn, 100), senders: make(chan *amqp.Sender, 100), credit: make(chan *amqp.Sender, 1000),
		ended: make(chan error, 1000), closed: make(chan error, 100)}
}

func (h *hub) Login(l amqp.Login) error {
	if h.login == nil {
		return nil
	}
	return h.login(l)
}

func (h *hub) Open(c *amqp.Conn, _ amqp.Peer) error {
	h.conns <- c
	return h.refuse
}

func (h *hub) Receive(r *amqp.Receiver) (amqp.Inlet, error) {
	if !strings.HasPrefix(r.Address(), "/in") {
		return nil, &amqp.Error{Condition: amqp.CondNotFound, Description: "no " + r.Address()}
	}
	if h.attach != nil {
		h.attach(r)
	}
	return h, nil
}

func (h *hub) Send(s *amqp.Sender) (amqp.Outlet, error) {
	if !strings.HasPrefix(s.Address(), "/out") {
		return nil, &amqp.Error{Condition: amqp.CondNotFound, Description: "no " + s.Address()}
	}
	h.senders <- s
	return outlet{h, s}, nil
}

func (h *hub) Deliver(d *amqp.Delivery) {
	if h.deliver == nil {
		d.Settle(amqp.Accepted{})
		return
	}
	h.deliver(d)
}

func (h *hub) Detached(err error) { h.ended <- err }
func (h *hub) Closed(err error)   { h.closed <- err }

type outlet struct {
	*hub
	s *amqp.Sender
}

func (o outlet) Credit() {
	select {
	case o.credit <- o.s:
	default:
	}
}

// serve gives the far end of a connection to the server and returns the near one.
func serve(t *testing.T, s *amqp.Server, h amqp.Handler) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeConn(ctx, far, h)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		near.Close()
	})
	return near
}

// dial is a client of the library on a new connection.
func dial(t *testing.T, s *amqp.Server, h amqp.Handler, opts *client.ConnOptions) *client.Conn {
	t.Helper()
	c, err := client.NewConn(serve(t, s, h), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func session(t *testing.T, c *client.Conn) *client.Session {
	t.Helper()
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sender(t *testing.T, s *client.Session, address string, opts *client.SenderOptions) *client.Sender {
	t.Helper()
	l, err := s.NewSender(t.Context(), address, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func receiver(t *testing.T, s *client.Session, address string, opts *client.ReceiverOptions) *client.Receiver {
	t.Helper()
	l, err := s.NewReceiver(t.Context(), address, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// next takes what must come.
func next[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("no %T within 10 s", v)
	}
	return v
}

// results collects what goroutines found, for the test's own to judge.
type results struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (r *results) Go(f func() error) {
	r.wg.Go(func() {
		err := f()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs = append(r.errs, err)
	})
}

func (r *results) check(t *testing.T) {
	t.Helper()
	r.wg.Wait()
	for _, err := range r.errs {
		if err != nil {
			t.Error(err)
		}
	}
}
