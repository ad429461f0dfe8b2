package handoff_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/signaler"
)

var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// Everything that is refused before the agent is asked, and what passes.
func TestHTTP(t *testing.T) {
	r := newRig(t, "http:127.0.0.1:0", nil).start()
	post := func(change func(*http.Request)) func() *http.Request {
		return func() *http.Request {
			req, err := http.NewRequest(http.MethodPost, "http://"+r.at.At+"/signal", strings.NewReader(good+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			change(req)
			return req
		}
	}
	for _, tt := range []struct {
		name   string
		req    func() *http.Request
		status int
		code   string
	}{
		{"a good one", post(func(*http.Request) {}), 200, ""},
		{"its scheme in lower case", post(func(r *http.Request) { r.Header.Set("Authorization", "bearer  "+token) }), 200, ""},
		{"Host is localhost", post(func(r *http.Request) { r.Host = "localhost" }), 200, ""},
		{"Host is an IPv6 address", post(func(r *http.Request) { r.Host = "[::1]:80" }), 200, ""},
		{"no token", post(func(r *http.Request) { r.Header.Del("Authorization") }), 401, "unauthenticated"},
		{"half a token", post(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token[1:]) }), 401, "unauthenticated"},
		{"an empty one", post(func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }), 401, "unauthenticated"},
		{"another scheme", post(func(r *http.Request) { r.Header.Set("Authorization", "Basic "+token) }), 401, "unauthenticated"},
		{"a browser", post(func(r *http.Request) { r.Header.Set("Origin", "null") }), 403, "forbidden"},
		{"DNS rebinding", post(func(r *http.Request) { r.Host = "evil.example.com" }), 403, "forbidden"},
		{"a name that looks like one", post(func(r *http.Request) { r.Host = "127.0.0.1.evil.example.com:80" }), 403, "forbidden"},
		{"another path", post(func(r *http.Request) { r.URL.Path = "/signals" }), 404, "not_found"},
		{"GET", post(func(r *http.Request) { r.Method = http.MethodGet }), 405, "bad_request"},
		{"garbage", post(func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5 }), 400, "bad_signal"},
		{"nothing", post(func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }), 400, "bad_signal"},
		{"too much", post(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), 1<<20
		}), 413, "bad_signal"},
		{"a bit too much", post(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", signaler.MaxSize+1))), -1
		}), 400, "bad_signal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := plain.Do(tt.req())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var a struct {
				Accepted      bool
				Code, Message string
			}
			if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || a.Code != tt.code || a.Accepted != (tt.status == 200) || (a.Message == "") != a.Accepted {
				t.Errorf("%s, %+v; want %d, %q", resp.Status, a, tt.status, tt.code)
			}
			if resp.Header.Get("Content-Type") != "application/json" {
				t.Error("it does not say that it is JSON")
			}
		})
	}
	r.mu.Lock()
	r.answer = func(string) *signaler.Refusal { return &signaler.Refusal{Code: "expired", Message: "x"} }
	r.mu.Unlock()
	resp, err := plain.Do(post(func(*http.Request) {})())
	if err != nil || resp.StatusCode != 409 {
		t.Errorf("a refusal of the agent's: %v, %v", resp, err)
	}
	resp.Body.Close()
}

// The wrong token, and what is no agent.
func TestSendHTTPFails(t *testing.T) {
	r := newRig(t, "http:127.0.0.1:0", nil).start()
	if no, err := handoff.Send(t.Context(), r.at, "wrong", []byte(good)); err != nil || no == nil || no.Code != "unauthenticated" {
		t.Errorf("a wrong token: %v, %v", no, err)
	}
	if _, err := handoff.Send(t.Context(), r.at, "x\r\nX-Evil: 1", []byte(good)); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("a token with a line break: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.RedirectHandler("http://example.com/", http.StatusTemporaryRedirect)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	defer func() {
		srv.Close()
		<-done
	}()
	_, err = handoff.Send(t.Context(), parse(t, "http:"+ln.Addr().String()), token, []byte(good))
	if err == nil || !strings.Contains(err.Error(), "307 Temporary Redirect, and not as an agent does") {
		t.Errorf("another server: %v", err)
	}
}

func TestHTTPTooMany(t *testing.T) {
	r := newRig(t, "http:127.0.0.1:0", func(c *handoff.Config) { c.MaxConns = 1 })
	r.src.SetTimes(patience, patience)
	r.start()
	c, err := net.Dial("tcp", r.at.At)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /signal HTTP/1.1\r\n")
	until(t, "another one is refused", func() bool { // perhaps without its answer: the request was not read
		no, err := r.send(good)
		return err == nil && no != nil && no.Code == "busy"
	})
	c.Close()
	until(t, "there is room", func() bool {
		no, err := r.send(good)
		return no == nil && err == nil
	})
}

// A request that never ends does not hold up the end.
func TestHTTPStops(t *testing.T) {
	r := newRig(t, "http:127.0.0.1:0", nil).start()
	c, err := net.Dial("tcp", r.at.At)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /signal HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\n{", token)
	if no, err := r.send(good); no != nil || err != nil {
		t.Errorf("%v, %v", no, err)
	}
	start := time.Now()
	if err := r.stop(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestHTTPPortTaken(t *testing.T) {
	r := newRig(t, "http:127.0.0.1:0", nil).start()
	other := newRig(t, "http:"+r.at.At, nil)
	if err := other.src.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}
