package method_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
	"websocketbridge/signaler/method"
	"websocketbridge/test/netfault"
)

func TestMain(m *testing.M) { netfault.Main(m) }

// hostName is in the certificate of package httptest.
const hostName = "example.com"

const secretToken = "SharedAccessSignature sr=example.com&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D&se=1&skn=service"

// tokens gives one token after the other, each time it is told to forget the last.
type tokens struct {
	mu     sync.Mutex
	n      int
	frozen bool  // it has no other one
	err    error // instead of one
	asked  int
}

func (s *tokens) Token(ctx context.Context) (credential.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if ctx.Err() != nil {
		return credential.Token{}, ctx.Err()
	}
	return credential.Token{Text: fmt.Sprint(secretToken, "&n=", s.n), Expires: time.Now().Add(time.Hour)}, s.err
}

func (s *tokens) Forget(t credential.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen && strings.HasSuffix(t.Text, fmt.Sprint("&n=", s.n)) {
		s.n++
	}
}

// A stub is a hub that answers as it is told.
type stub struct {
	*httptest.Server
	calls  atomic.Int64
	method *method.Signaler
	tokens *tokens
}

// newStub starts a hub and a signaler for it. change may be nil.
func newStub(t *testing.T, h http.HandlerFunc, change func(*method.Config)) *stub {
	t.Helper()
	s := &stub{tokens: &tokens{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		h(w, r)
	}))
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	s.method = newMethod(t, s.Server, s.tokens, change)
	return s
}

func newMethod(t *testing.T, srv *httptest.Server, cred credential.Source, change func(*method.Config)) *method.Signaler {
	t.Helper()
	cfg := method.Config{HostName: hostName, Addr: srv.Listener.Addr().String(), Credential: cred, TLS: &tls.Config{RootCAs: rootsOf(srv)}, Proxy: netfault.NoProxy}
	if change != nil {
		change(&cfg)
	}
	m, err := method.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func rootsOf(srv *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return pool
}

func newSignal(device string) *signaler.Signal {
	return &signaler.Signal{
		AcceptURL:   "wss://relay.example/bridge/accept?bridgeToken=t0k3n-of-the-bridge",
		RejectURL:   "https://relay.example/bridge/reject?bridgeToken=t0k3n-of-the-bridge",
		RequestData: "req-secret&<data>", Version: signaler.Version, BridgeID: "b1", DeviceID: device, Target: "ssh",
		ExpiresAt: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
}

// accept answers as a device that accepts.
func accept(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, `{"status":200,"payload":null}`)
}

// hubSays writes one of the hub's errors in one of its forms.
func hubSays(w http.ResponseWriter, form string, status, code int, name, words string) {
	inner, _ := json.Marshal(map[string]any{"errorCode": code, "trackingId": "5f3a-G:0-TimeStamp:11/21/2026 10:00:00", "message": words,
		"info": map[string]string{"timeout": "00:00:00"}, "timestampUtc": "2026-11-21T10:00:00.0000000Z"})
	old := map[string]string{"Message": "ErrorCode:" + name + ";" + words, "ExceptionMessage": "Tracking ID:5f3a-G:0-TimeStamp:11/21/2026 10:00:00"}
	var body []byte
	header := name
	switch form {
	case "new":
		body, _ = json.Marshal(map[string]string{"Message": string(inner), "ExceptionMessage": ""})
	case "old":
		body, _ = json.Marshal(old)
	case "new, another header":
		body, _ = json.Marshal(map[string]string{"Message": string(inner), "ExceptionMessage": ""})
		header = "GenericBadRequest"
	case "old, another header":
		body, _ = json.Marshal(old)
		header = "ServerError"
	case "header only":
	case "bare":
		body, header = inner, ""
	}
	if header != "" {
		w.Header().Set("iothub-errorcode", header)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body)
}

// sentinels of package signaler; an error is exactly one of them.
var sentinels = []error{
	signaler.ErrDeviceNotFound, signaler.ErrDeviceOffline, signaler.ErrRefused, signaler.ErrTimedOut, signaler.ErrThrottled,
	signaler.ErrUnauthorized, signaler.ErrNotSupported, signaler.ErrTooBig, signaler.ErrUnavailable,
}

// check wants err to be one thing only, and to keep secrets.
func check(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	if err == nil {
		return
	}
	n := 0
	for _, s := range sentinels {
		if errors.Is(err, s) {
			n++
		}
	}
	if n > 1 {
		t.Errorf("%v is %d things", err, n)
	}
	for _, secret := range []string{"t0k3n", "req-secret", "c2VjcmV0", "bridgeToken="} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("a secret is in %v", err)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
		t.Errorf("it is not one line: %q", err)
	}
}

func withTimeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, errors.New("the requester has waited for long enough"))
	t.Cleanup(cancel)
	return ctx
}

// quiet is for servers whose clients hang up on purpose.
var quiet = log.New(io.Discard, "", 0)

// countDials dials, and counts.
func countDials(n *atomic.Int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}
