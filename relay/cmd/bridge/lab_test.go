package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/auth/authtest"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/session"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// patience is how long a script waits for a state before it has failed.
const patience = 20 * time.Second

// lab is the other end of everything that one script does.
type lab struct {
	work string
	key  string // the API key, which must never be seen

	hub    *fake.Hub
	node   *relay.Server
	front  *front // the relay's listener
	addr   string // of the relay, also after it was stopped
	slow   bool   // to drain
	drain  context.CancelFunc
	ended  chan struct{}
	admin  http.Handler
	ctx    context.Context // of devices
	cancel context.CancelFunc
	jobs   sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns []net.Conn // of devices

	idp       *authtest.Provider // nil: none
	procs     map[string]*process
	strangers []func()
}

// startRelay starts a relay, a hub with it if there is none, and names both key
// and relay in the environment.
func (l *lab) startRelay(ts *testscript.TestScript, args []string) {
	opts := map[string]string{}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		opts[name] = value
	}
	cfg := relay.Config{Auth: auth.AllowAll{}, Drain: -1}
	scheme, listenAt := "ws://", l.addr
	if listenAt == "" {
		listenAt = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", listenAt)
	// At its old address after a restart, somebody's outgoing connection may have
	// the port for a moment.
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		ln, err = net.Listen("tcp", listenAt)
	}
	ts.Check(err)
	l.addr = ln.Addr().String()
	if opts["tls"] != "" {
		srv := httptest.NewUnstartedServer(nil)
		srv.StartTLS()
		cert := srv.TLS.Certificates[0]
		ts.Check(os.WriteFile(filepath.Join(l.work, "ca.pem"), pemOf(cert), 0o600))
		srv.Close()
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
		scheme = "wss://"
	}
	if l.hub == nil {
		l.hub = fake.New(fake.Config{AnswerTimeout: patience})
		l.ctx, l.cancel = context.WithCancel(context.Background())
	}
	switch opts["auth"] {
	case "none":
	case "oidc":
		cfg.Auth = l.oidc(ts)
	default:
		cfg.Auth = l.keys(ts)
		ts.Setenv("BRIDGE_API_KEY_FILE", filepath.Join(l.work, "key"))
	}
	cfg.PublicURL, cfg.Signaler = scheme+l.addr, l.hub
	for name, to := range map[string]*time.Duration{"dialback": &cfg.DialBack, "drain": &cfg.Drain} {
		if opts[name] != "" {
			*to, err = time.ParseDuration(opts[name])
			ts.Check(err)
		}
	}
	if opts["policy"] != "" {
		cfg.Policy, err = policy.Load(filepath.Join(l.work, opts["policy"]))
		ts.Check(err)
	}
	l.slow = cfg.Drain > 0
	cfg.MaxBridges, _ = strconv.Atoi(opts["max"])
	cfg.Keys, err = token.NewRing(token.NewKey())
	ts.Check(err)
	l.node, err = relay.New(cfg)
	ts.Check(err)
	l.admin = l.node.AdminHandler()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	l.front = &front{Listener: ln}
	front := l.front
	l.drain, l.ended = cancel, ended
	node := l.node
	go func() {
		defer close(ended)
		node.Run(ctx, relay.Listeners{Public: front})
	}()
	ts.Setenv("BRIDGE_RELAY", cfg.PublicURL)
	ts.Setenv("ADDR", l.addr)
}

// keys makes one API key for everything but target "secret", and writes it.
func (l *lab) keys(ts *testscript.TestScript) *auth.Keys {
	if l.key == "" {
		l.key = auth.NewAPIKey()
		ts.Check(os.WriteFile(filepath.Join(l.work, "key"), []byte(l.key+"\n"), 0o600))
	}
	hash, err := auth.HashKey(l.key)
	ts.Check(err)
	keys, err := auth.ParseKeys("ops " + hash + " devices=pump-* targets=echo,down,10.*")
	ts.Check(err)
	return keys
}

// oidc starts an identity provider, if there is none, and lets in whose tokens it gave.
func (l *lab) oidc(ts *testscript.TestScript) auth.Authenticator {
	if l.idp == nil {
		var stop func()
		l.idp, stop = authtest.Start()
		l.strangers = append(l.strangers, stop)
		l.setClaims("api://bridge")
		ts.Setenv("BRIDGE_OIDC_ISSUER", l.idp.Issuer)
		ts.Setenv("BRIDGE_OIDC_CLIENT_ID", "bridge-command")
	}
	o, err := auth.NewOIDC(auth.OIDCConfig{Issuer: l.idp.Issuer, Audiences: []string{"api://bridge"}})
	ts.Check(err)
	all, err := auth.ParseGlob("*")
	ts.Check(err)
	return granted{o, []auth.Grant{{Devices: []auth.Glob{all}, Targets: []auth.Glob{all}}}}
}

func (l *lab) setClaims(audience string) {
	l.idp.SetClaims(map[string]any{"aud": audience, "sub": "1", "preferred_username": "ada@example.com"})
}

// granted stands for a policy.
type granted struct {
	auth.Authenticator
	grants []auth.Grant
}

func (g granted) Authenticate(r *http.Request) (*auth.Principal, error) {
	p, err := g.Authenticator.Authenticate(r)
	if p != nil {
		p.Grants = g.grants
	}
	return p, err
}

// setProvider makes the identity provider behave.
func (l *lab) setProvider(ts *testscript.TestScript, args []string) {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "aud":
			l.setClaims(value)
		case "pending":
			l.idp.SetPending(strings.Split(value, ",")...)
		case "refuse":
			l.idp.SetRefuse(value)
		case "life":
			life, err := time.ParseDuration(value)
			ts.Check(err)
			l.idp.Life = life // between requests
		case "down":
			l.idp.SetDown(value == "yes")
		default:
			ts.Fatalf("provider: %s?", name)
		}
	}
}

func (l *lab) stopRelay() {
	if l.node == nil {
		return
	}
	if l.slow {
		l.node.Kill()
	}
	l.drain()
	<-l.ended
}

func (l *lab) drainRelay(ts *testscript.TestScript) {
	l.drain()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		rec := httptest.NewRecorder()
		l.admin.ServeHTTP(rec, httptest.NewRequest("GET", wire.PathReadyz, nil))
		if rec.Code == http.StatusServiceUnavailable {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the relay does not drain")
		}
	}
}

func (l *lab) setFaults(ts *testscript.TestScript, args []string) {
	var f fake.Faults
	ts.Check(json.Unmarshal([]byte(strings.Join(args, " ")), &f))
	ts.Check(l.hub.SetFaults(f))
}

// startDevice makes a device listen.
func (l *lab) startDevice(ts *testscript.TestScript, args []string) {
	mode := strings.Join(args[1:], " ")
	l.jobs.Go(func() {
		l.hub.Source(args[0]).Run(l.ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
			s, err := signaler.Parse(d.Payload)
			if err != nil {
				return &signaler.Refusal{Code: "bad_signal", Message: err.Error()}
			}
			targets, _ := wire.SplitTargets(s.Target)
			for _, name := range targets {
				if name != "echo" && name != "down" {
					return &signaler.Refusal{Code: "target_not_allowed", Message: "target " + strconv.Quote(name) + " is not on this device's list"}
				}
			}
			if mode != "never" {
				l.jobs.Go(func() { l.serve(s, mode) })
			}
			return nil
		})
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ts.Check(l.hub.WaitOnline(ctx, args[0]))
}

// serve dials back and serves echo.
func (l *lab) serve(s *signaler.Signal, mode string) {
	d := ws.Dialer{
		TLS:   &tls.Config{InsecureSkipVerify: true}, // the device's trust is deviceagent's test
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.conns = append(l.conns, c)
			}
			return c, err
		},
	}
	if !slices.Contains(s.Subprotocols, wire.SessionV1) || mode == "old" {
		if c, err := d.DialWebSocket(l.ctx, s.AcceptURL, nil); err == nil {
			io.Copy(c, c)
			c.Close()
		}
		return
	}
	c, err := d.DialWebSocket(l.ctx, s.AcceptURL, nil, wire.SessionV1)
	if err != nil {
		return
	}
	sess, err := session.New(c, session.Device, session.Config{})
	if err != nil {
		return
	}
	l.jobs.Go(func() {
		for {
			in, err := sess.Accept(l.ctx)
			if err != nil {
				return
			}
			if in.Target() == "down" {
				in.Refuse("dial_failed", "127.0.0.1:22: connection refused")
				continue
			}
			l.jobs.Go(func() {
				if st, err := in.Accept(); err == nil {
					io.Copy(st, st)
					st.Close()
				}
			})
		}
	})
	sess.Run(l.ctx)
}

// cut breaks every connection of a device without a word.
func (l *lab) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		if t, ok := c.(*net.TCPConn); ok {
			t.SetLinger(0)
		}
		c.Close()
	}
	l.conns = nil
}

// stop ends everything.
func (l *lab) stop() {
	for _, p := range l.procs {
		p.cmd.Process.Kill()
		<-p.done
	}
	for _, stop := range l.strangers {
		stop()
	}
	if l.cancel != nil {
		l.cancel()
	}
	l.stopRelay()
	l.jobs.Wait()
}

// A front is the relay's listener. It can ping the WebSockets on its connections:
// those whose 101 is out.
type front struct {
	net.Listener
	mu    sync.Mutex // guards conns
	conns []*frontConn
}

type frontConn struct {
	net.Conn
	mu sync.Mutex // held for one write, of whole frames; guards up
	up bool
}

func (f *front) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	fc := &frontConn{Conn: c}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, fc)
	return fc, nil
}

func (f *front) ping(payload string) {
	f.mu.Lock()
	conns := f.conns
	f.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		if c.up {
			c.Conn.Write(ws.AppendControl(nil, ws.OpPing, []byte(payload), false, [4]byte{})) // who is gone hears nothing
		}
		c.mu.Unlock()
	}
}

func (c *frontConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(p)
	c.up = c.up || err == nil && strings.HasPrefix(string(p[:min(len(p), 13)]), "HTTP/1.1 101 ")
	return n, err
}

func (c *frontConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
