package hub_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"websocketbridge/signaler"
	"websocketbridge/signaler/c2d"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator"
	"websocketbridge/test/testlog"
)

// c2dPatience bounds every wait for a state.
const c2dPatience = 60 * time.Second

// c2dLab is a hub, and a signaler that runs.
type c2dLab struct {
	*testing.T
	hub *emulator.Hub
	log *testlog.Buffer
	s   *c2d.Signaler
}

// c2dBearer is a token of Entra ID that the hub of a test knows.
const c2dBearer = "header.claims.signature"

// newC2DLab starts a hub with the device pump-7, and a signaler that change may
// change before it runs.
func newC2DLab(t *testing.T, cfg emulator.Config, change func(*c2dLab, *c2d.Config)) *c2dLab {
	t.Helper()
	l := &c2dLab{T: t, log: &testlog.Buffer{}}
	cfg.BearerTokens = []string{c2dBearer}
	cfg.Devices = append(cfg.Devices, emulator.Device{ID: "pump-7"})
	var err error
	if l.hub, err = emulator.New(cfg); err != nil {
		t.Fatal(err)
	}
	l.run(l.hub.Run)
	c := c2d.Config{
		HostName: l.hub.HostName(), Addr: l.hub.AMQPAddr(), Credential: l.keys("service"), Logger: slog.New(slog.NewTextHandler(l.log, nil)),
		TLS:   &tls.Config{RootCAs: l.hub.RootCAs()},
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }, RetryMin: 20 * time.Millisecond,
	}
	if change != nil {
		change(l, &c)
	}
	if l.s, err = c2d.New(c); err != nil {
		t.Fatal(err)
	}
	l.run(l.s.Run)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the signaler's log:\n%s", l.log)
		}
	})
	return l
}

// run runs f until the test ends, and waits for it.
func (l *c2dLab) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	l.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				l.Error(err)
			}
		case <-time.After(c2dPatience):
			l.Error("it does not stop")
		}
	})
}

// keys signs in with a policy's key.
func (l *c2dLab) keys(policy string) *credential.Signer {
	l.Helper()
	cs, err := sas.ParseConnectionString(l.hub.ServiceConnectionString(policy))
	if err != nil {
		l.Fatal(err)
	}
	src, err := credential.FromConnectionString(cs, 0)
	if err != nil {
		l.Fatal(err)
	}
	return src
}

// c2dSource is a credential.Source.
type c2dSource func() (credential.Token, error)

func (f c2dSource) Token(context.Context) (credential.Token, error) { return f() }

// bearer signs in with Entra ID.
func bearer() (credential.Token, error) {
	return credential.Token{Text: "Bearer " + c2dBearer, Kind: credential.Bearer, Expires: time.Now().Add(time.Hour)}, nil
}

func (l *c2dLab) faults(f emulator.Faults) {
	l.Helper()
	if err := l.hub.SetFaults(f); err != nil {
		l.Fatal(err)
	}
}

func (l *c2dLab) do(a emulator.Action) {
	l.Helper()
	if err := l.hub.Do(a); err != nil {
		l.Fatal(err)
	}
}

// wait waits for a state.
func (l *c2dLab) wait(what string, is func() bool) {
	l.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(c2dPatience); !is(); <-tick.C {
		if time.Now().After(end) {
			l.Fatalf("waited in vain: %s", what)
		}
	}
}

func (l *c2dLab) waitUp() {
	l.Helper()
	l.wait("the signaler is connected", func() bool { up, _, _ := l.s.State(); return up })
}

// signal signals a device with a relay's patience.
func (l *c2dLab) signal(device, bridge string) error {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), 15*time.Second)
	defer cancel()
	return l.s.Signal(ctx, c2dSignal(device, bridge))
}

func c2dSignal(device, bridge string) *signaler.Signal {
	return &signaler.Signal{
		AcceptURL: "wss://relay.example/bridge/accept?bridgeToken=t0k3n", Version: signaler.Version, DeviceID: device, BridgeID: bridge,
		ExpiresAt: time.Now().Add(time.Minute),
	}
}

// must signals, and it must succeed.
func (l *c2dLab) must(device, bridge string) {
	l.Helper()
	if err := l.signal(device, bridge); err != nil {
		l.Errorf("bridge %s: %v", bridge, err)
	}
}

// fails signals, and it must fail with that.
func (l *c2dLab) fails(device string, want error) {
	l.Helper()
	if err := l.signal(device, "b"); !errors.Is(err, want) {
		l.Errorf("got %v, want %v", err, want)
	}
}

// put makes the hub know a device.
func (l *c2dLab) put(id string) {
	l.Helper()
	if _, err := l.hub.PutDevice(emulator.Device{ID: id}); err != nil {
		l.Fatal(err)
	}
}

// c2dMessage is one as it reached a device.
type c2dMessage struct {
	topic   string
	payload []byte
}

// device connects a device of the hub over MQTT, with a client that is not ours.
// handle may block; a message is acknowledged when it returns.
func (l *c2dLab) device(id string, handle func(ctx context.Context, m c2dMessage)) {
	l.Helper()
	text, err := l.hub.DeviceConnectionString(id)
	if err != nil {
		l.Fatal(err)
	}
	cs, err := sas.ParseConnectionString(text)
	if err != nil {
		l.Fatal(err)
	}
	token, err := sas.Sign(cs.Resource(), "", cs.Key, time.Now().Add(time.Hour))
	if err != nil {
		l.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	o := mqtt.NewClientOptions().AddBroker("tls://" + l.hub.MQTTAddr()).SetClientID(id).SetOrderMatters(false).
		SetUsername(l.hub.HostName() + "/" + id + "/?api-version=2021-04-12").SetPassword(token).
		SetTLSConfig(&tls.Config{RootCAs: l.hub.RootCAs(), ServerName: l.hub.HostName()})
	client := mqtt.NewClient(o)
	l.Cleanup(func() {
		cancel()
		client.Disconnect(0)
		work.Wait()
	})
	ok := func(what string, tok mqtt.Token) {
		l.Helper()
		if !tok.WaitTimeout(c2dPatience) || tok.Error() != nil {
			l.Fatalf("device %s: %s: %v", id, what, tok.Error())
		}
	}
	ok("connect", client.Connect())
	ok("subscribe", client.Subscribe("devices/"+id+"/messages/devicebound/#", 1, func(_ mqtt.Client, m mqtt.Message) {
		handle(ctx, c2dMessage{m.Topic(), m.Payload()})
	}))
	wait, end := context.WithTimeout(ctx, c2dPatience)
	defer end()
	if err := l.hub.WaitListening(wait, id, "", emulator.ListenMessages); err != nil {
		l.Fatal(err)
	}
}

// c2dWire carries TCP connections to the hub. A test may refuse or freeze them.
type c2dWire struct {
	ln net.Listener
	to string

	mu      sync.Mutex // guards what follows
	refused bool
	frozen  chan struct{} // closed when the connections of now are to carry nothing more
	conns   int
}

func newC2DWire(t *testing.T, to string) *c2dWire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &c2dWire{ln: ln, to: to, frozen: make(chan struct{})}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() { w.carry(ctx, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		work.Wait()
	})
	return w
}

func (w *c2dWire) addr() string { return w.ln.Addr().String() }

func (w *c2dWire) carry(ctx context.Context, near net.Conn) {
	defer near.Close()
	w.mu.Lock()
	refused, frozen := w.refused, w.frozen
	w.conns++
	w.mu.Unlock()
	if refused {
		return
	}
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
	half := func(dst, src net.Conn) {
		defer dst.Close()
		buf := make([]byte, 4096)
		for {
			n, err := src.Read(buf)
			select {
			case <-frozen: // not even the end is told
				<-ctx.Done()
				return
			default:
			}
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	var back sync.WaitGroup
	back.Go(func() { half(near, far) })
	half(far, near)
	back.Wait()
}

// freeze makes every connection of now half open: nothing gets through, and no end
// is told.
func (w *c2dWire) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.frozen)
	w.frozen = make(chan struct{})
}

func (w *c2dWire) refuse(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = yes
}

func (w *c2dWire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conns
}

// c2dProxy is an HTTP proxy that wants a user and a password. It returns its URL
// without them.
func c2dProxy(t *testing.T, user, password string) (addr string, used func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	var work sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != want {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		near, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			far.Close()
			return
		}
		io.WriteString(near, "HTTP/1.1 200\r\n\r\n") // some send no reason phrase
		mu.Lock()
		defer mu.Unlock()
		n++
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			work.Go(func() {
				io.Copy(pair[0], pair[1])
				pair[0].Close()
			})
		}
	}))
	t.Cleanup(func() {
		srv.Close()
		mu.Lock() // a WaitGroup is not to be joined while it is waited for
		defer mu.Unlock()
		work.Wait()
	})
	return srv.Listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}
