package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/testlog"
)

const patience = 20 * time.Second

func request(key string) *http.Request {
	r := httptest.NewRequest("GET", wire.PathConnect, nil)
	r.Header.Set(wire.HeaderAPIKey, key)
	return r
}

// relayRun is one run of the command that goes on.
type relayRun struct {
	t                  *testing.T
	url, admin, agents string
	log                *lines
	ended              chan error
	key                string
	ca                 string               // file; empty: plain
	client             string               // address that requesters and devices dial from; empty: any
	signed             []signaler.PublicKey // that devices want signals signed with; empty: they do not look
	bridges            sync.WaitGroup
	stopDevice         func()
}

// lines is a log that can be waited for.
type lines struct{ testlog.Buffer }

func (l *lines) wait(t *testing.T, re string) []string {
	t.Helper()
	return l.Wait(t, patience, re)
}

// start runs the command on free ports until the test ends.
func start(t *testing.T, env map[string]string) *relayRun {
	t.Helper()
	r := &relayRun{t: t, log: &lines{}, ended: make(chan error, 1), key: auth.NewAPIKey(), ca: env["ca"]}
	delete(env, "ca")
	hash, err := auth.HashKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "api-keys")
	if err := os.WriteFile(keys, []byte("ops "+hash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"RELAY_LISTEN": "127.0.0.1:0", "RELAY_ADMIN_LISTEN": "127.0.0.1:0", "RELAY_FAKE_LISTEN": "127.0.0.1:0",
		"RELAY_SIGNALER": "fake", "RELAY_API_KEYS": keys,
	}
	for name, value := range env {
		all[name] = value
	}
	setenv(t, all)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { r.ended <- run(ctx, nil, strings.NewReader(""), io.Discard, r.log) }()
	m := r.log.wait(t, `msg="relay listens".* url=(\S+) signaler=fake agents=(\S+) .*admin=(\S+)`)
	r.url, r.agents, r.admin = m[1], m[2], m[3]
	t.Cleanup(func() {
		cancel()
		if r.stopDevice != nil {
			r.stopDevice()
		}
		if r.ended != nil {
			r.wait()
		}
	})
	return r
}

// wait wants the command to end well.
func (r *relayRun) wait() {
	r.t.Helper()
	select {
	case err := <-r.ended:
		r.ended = nil
		if err != nil {
			r.t.Errorf("run: %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("it runs on")
	}
	r.log.wait(r.t, `msg="relay stopped"`)
}

func (r *relayRun) dialer() ws.Dialer {
	roots, err := ws.LoadRoots(r.ca)
	if err != nil {
		r.t.Fatal(err)
	}
	return ws.Dialer{TLS: &tls.Config{RootCAs: roots}, Dial: dialFrom(r.client)}
}

// device listens at the fake hub's endpoint, as an agent in another process
// does, and serves echo.
func (r *relayRun) device(id string) {
	r.t.Helper()
	src, err := fake.NewRemoteSource(fake.RemoteConfig{URL: "ws://" + r.agents, DeviceID: id})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := r.dialer()
	r.bridges.Go(func() {
		src.Run(ctx, func(_ context.Context, del signaler.Delivery) *signaler.Refusal {
			s, err := signaler.Parse(del.Payload)
			if err != nil {
				return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
			}
			if err := signaler.CheckSignature(s, r.signed); len(r.signed) > 0 && err != nil {
				return &signaler.Refusal{Code: "wrong_signature", Message: err.Error()}
			}
			r.bridges.Go(func() {
				c, err := d.DialWebSocket(ctx, s.AcceptURL, nil, wire.SessionV1)
				if err != nil {
					return
				}
				sess, _ := session.New(c, session.Device, session.Config{})
				r.bridges.Go(func() {
					for {
						in, err := sess.Accept(ctx)
						if err != nil {
							return
						}
						if st, err := in.Accept(); err == nil {
							r.bridges.Go(func() { io.Copy(st, st); st.Close() })
						}
					}
				})
				sess.Run(ctx)
			})
			return nil
		})
	})
	r.stopDevice = func() { cancel(); r.bridges.Wait() }
	r.log.wait(r.t, `msg="device listens" device=`+id)
}

func (r *relayRun) dial() (*client.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return client.Dial(ctx, client.Config{URL: r.url, APIKey: r.key, Dialer: r.dialer()}, client.Request{Device: "pump-7", Targets: []string{"echo"}})
}

func (r *relayRun) echo(s *client.Session) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := s.Open(ctx, "echo")
	if err != nil {
		r.t.Fatal(err)
	}
	defer st.Close()
	io.WriteString(st, "hello\n")
	if line, err := bufio.NewReader(st).ReadString('\n'); line != "hello\n" {
		r.t.Fatalf("got %q, %v", line, err)
	}
}

func (r *relayRun) get(path string) (int, string) {
	r.t.Helper()
	resp, err := http.Get("http://" + r.admin + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// Everything is on: TLS from files, a private CA on both sides, a key, an agent
// elsewhere, the admin listener, a drain by SIGTERM.
func TestServeTLS(t *testing.T) {
	cert, key, ca := certificate(t)
	r := start(t, map[string]string{"RELAY_TLS_CERT": cert, "RELAY_TLS_KEY": key, "ca": ca})
	if !strings.HasPrefix(r.url, "wss://127.0.0.1:") {
		t.Fatalf("public URL %q", r.url)
	}
	for path, want := range map[string]string{wire.PathHealthz: "ok\n", wire.PathReadyz: "ready\n"} {
		if status, body := r.get(path); status != 200 || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	r.device("pump-7")
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	r.echo(s)

	// A client that does not trust the CA is not let near its key.
	r.ca = ""
	if _, err := r.dial(); !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("without the CA: %v", err)
	}
	r.ca = ca

	raise(t, syscall.SIGTERM)
	r.log.wait(t, "msg=draining bridges=1")
	if status, _ := r.get(wire.PathReadyz); status != http.StatusServiceUnavailable {
		t.Errorf("ready while draining: %d", status)
	}
	if _, err := r.dial(); !refused(err, wire.Draining) {
		t.Errorf("a new bridge while draining: %v", err)
	}
	r.echo(s) // the open one lives on
	s.Close()
	r.wait()
	if secret := regexp.MustCompile(`bridgeToken|wsb_`); secret.MatchString(r.log.String()) {
		t.Errorf("a secret is in the log:\n%s", r.log.String())
	}
}

func refused(err error, code wire.Code) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// A second signal does not wait for the drain.
func TestSecondSignal(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true"})
	r.device("pump-7")
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.echo(s)
	raise(t, syscall.SIGTERM)
	r.log.wait(t, "msg=draining bridges=1")
	raise(t, syscall.SIGINT)
	r.wait()
	<-s.Done()
	if err := s.Why(); !refused(err, wire.Draining) {
		t.Errorf("the bridge ended with %v", err)
	}
}

// Both signals may come before the first was heeded.
func TestHeed(t *testing.T) {
	signals := make(chan os.Signal, 2)
	signals <- os.Interrupt
	signals <- os.Interrupt
	var got []string
	heed(context.Background(), signals, slog.New(slog.DiscardHandler), func() { got = append(got, "drain") }, func() { got = append(got, "kill") })
	if strings.Join(got, " ") != "drain kill" {
		t.Errorf("got %v", got)
	}
	end, cancel := context.WithCancel(context.Background())
	cancel()
	heed(end, signals, slog.New(slog.DiscardHandler), func() { t.Error("drained") }, nil)
}

func TestListenersInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, name := range []string{"RELAY_LISTEN", "RELAY_ADMIN_LISTEN", "RELAY_FAKE_LISTEN"} {
		env := map[string]string{
			"RELAY_LISTEN": "127.0.0.1:0", "RELAY_ADMIN_LISTEN": "127.0.0.1:0", "RELAY_FAKE_LISTEN": "127.0.0.1:0",
			"RELAY_SIGNALER": "fake", "RELAY_AUTH": "none", "RELAY_PLAIN": "true",
		}
		env[name] = ln.Addr().String()
		got := with(t, env, "")
		if got.fault == nil || !strings.HasPrefix(got.fault.Error(), name+": ") || !strings.Contains(got.fault.Error(), "in use") {
			t.Errorf("%s: %v", name, got.fault)
		}
	}
}

// What everybody can do is said loudly; without an admin listener there is none.
func TestOpenToAll(t *testing.T) {
	var log lines
	setenv(t, map[string]string{
		"RELAY_LISTEN": "127.0.0.1:0", "RELAY_ADMIN_LISTEN": "", "RELAY_FAKE_LISTEN": "127.0.0.1:0", "RELAY_PUBLIC_URL": "wss://relay.example.com/front",
		"RELAY_SIGNALER": "fake", "RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_LOG_FORMAT": "json",
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- run(ctx, nil, nil, io.Discard, &log) }()
	log.wait(t, `"level":"WARN","msg":"RELAY_AUTH=none: everybody`)
	line := log.wait(t, `.*"relay listens".*`)[0]
	if strings.Contains(line, "admin") || !strings.Contains(line, `"url":"wss://relay.example.com/front"`) {
		t.Error(line)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// certificate writes a server's certificate and key for 127.0.0.1, and its CA.
func certificate(t *testing.T) (cert, key, ca string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	defer srv.Close()
	c := srv.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", c.Certificate[0]), write("key.pem", "PRIVATE KEY", der), write("ca.pem", "CERTIFICATE", c.Certificate[0])
}

// raise sends this process a signal.
func raise(t *testing.T, sig os.Signal) {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(sig)
	}
	if err != nil {
		t.Fatal(err)
	}
}
