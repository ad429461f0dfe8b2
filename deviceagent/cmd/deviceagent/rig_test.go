package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/token"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/testlog"
)

const patience = 20 * time.Second

// rig is a relay and a fake hub with its endpoint, over real sockets.
type rig struct {
	ctx   context.Context // of the test
	url   string
	ca    string
	hub   *fake.Hub
	hubAt string

	stop  context.CancelFunc // of the agent
	ended chan error
}

func newRig(t *testing.T, secure bool) *rig {
	t.Helper()
	return newRigWith(t, secure, func(*relay.Config) {})
}

func newRigWith(t *testing.T, secure bool, change func(*relay.Config)) *rig {
	t.Helper()
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	public, hubAt := listen(), listen()
	r := &rig{url: "ws://" + public.Addr().String(), hub: fake.New(fake.Config{}), hubAt: hubAt.Addr().String()}
	if secure {
		srv := httptest.NewUnstartedServer(nil)
		srv.StartTLS()
		cert := srv.TLS.Certificates[0]
		srv.Close()
		r.ca = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
			t.Fatal(err)
		}
		r.url = "wss" + strings.TrimPrefix(r.url, "ws")
		public = tls.NewListener(public, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	cfg := relay.Config{PublicURL: r.url, Signaler: r.hub, Keys: ring, Auth: auth.AllowAll{}, Drain: -1, DialBack: 2 * time.Second}
	change(&cfg)
	node, err := relay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { node.Run(ctx, relay.Listeners{Public: public}) })
	parts.Go(func() { r.hub.Serve(ctx, hubAt) })
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
			if r.ended != nil {
				<-r.ended
			}
		}
		cancel()
		parts.Wait()
	})
	var cancelTest context.CancelFunc
	r.ctx, cancelTest = context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancelTest)
	return r
}

// agent runs the command as pump-7 with env until the test ends, as main does.
func (r *rig) agent(t *testing.T, env map[string]string) *logged {
	t.Helper()
	all := map[string]string{
		"AGENT_DEVICE_ID": "pump-7", "AGENT_SIGNALS": "fake", "AGENT_FAKE_URL": "ws://" + r.hubAt, "AGENT_RELAY_HOSTS": "127.0.0.1",
	}
	for name, value := range env {
		all[name] = value
	}
	setenv(t, all)
	log := &logged{}
	ctx, stop := untilSignal()
	r.stop, r.ended = stop, make(chan error, 1)
	go func() { r.ended <- run(ctx, nil, nil, io.Discard, log) }()
	if err := r.hub.WaitOnline(r.ctx, "pump-7"); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	return log
}

// wait wants the command to end well.
func (r *rig) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.ended:
		r.ended = nil
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it runs on")
	}
}

func (r *rig) dial(targets ...string) (*client.Session, error) {
	roots, err := ws.LoadRoots(r.ca)
	if err != nil {
		return nil, err
	}
	return client.Dial(r.ctx, client.Config{URL: r.url, Dialer: ws.Dialer{TLS: &tls.Config{RootCAs: roots}}}, client.Request{Device: "pump-7", Targets: targets})
}

// logged is a log that can be waited for.
type logged struct{ testlog.Buffer }

func (l *logged) wait(t *testing.T, want string) {
	t.Helper()
	l.Wait(t, patience, regexp.QuoteMeta(want))
}
