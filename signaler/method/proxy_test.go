package method_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"websocketbridge/signaler"
	"websocketbridge/signaler/method"
)

// A proxy is asked for the address that is to be dialled, with its password, and the
// hub keeps its name.
func TestProxy(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	ended := make(chan struct{}, 2) // of the one tunnel, each way
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		near, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		for _, way := range [][2]net.Conn{{far, near}, {near, far}} {
			go func() { io.Copy(way[0], way[1]); way[0].Close(); ended <- struct{}{} }()
		}
	}))
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	u.User = url.UserPassword("ops", "pa55word")
	s := newStub(t, accept, func(c *method.Config) {
		c.Proxy = func(r *http.Request) (*url.URL, error) { return u, nil }
	})
	if err := s.method.Signal(t.Context(), newSignal("pump-7")); err != nil {
		t.Fatal(err)
	}
	s.method.Close()
	<-ended
	<-ended
	mu.Lock()
	defer mu.Unlock()
	if want := "CONNECT " + s.Listener.Addr().String() + " Basic b3BzOnBhNTV3b3Jk"; len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// A proxy that is no good is no secret's end.
func TestProxyFaults(t *testing.T) {
	teapot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer teapot.Close()
	for name, tt := range map[string]struct {
		proxy string
		err   error
		words string
	}{
		"refuses":   {"http://ops:pa55word@" + teapot.Listener.Addr().String(), nil, "teapot"},
		"not there": {"http://ops:pa55word@127.0.0.1:1", nil, "connection refused"},
		"no URL":    {"", errors.New(`parse "http://ops:pa55word@x:y": invalid port`), "the proxy setting is not a URL"},
		"https":     {"https://ops:pa55word@127.0.0.1:1", nil, "another address"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, accept, func(c *method.Config) {
				c.Proxy = func(*http.Request) (*url.URL, error) {
					if tt.err != nil {
						return nil, tt.err
					}
					return url.Parse(tt.proxy)
				}
			})
			err := s.method.Signal(t.Context(), newSignal("pump-7"))
			check(t, err, signaler.ErrUnavailable)
			if !strings.Contains(err.Error(), tt.words) || strings.Contains(err.Error(), "pa55word") {
				t.Errorf("got %v", err)
			}
		})
	}
}
