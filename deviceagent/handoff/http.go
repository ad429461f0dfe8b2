package handoff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"websocketbridge/signaler"
)

// Path of the one thing that there is over HTTP.
const Path = "/signal"

// slack is for space around a signal, in bytes, such as a file's last newline.
const slack = 64

// runHTTP serves until ctx ends or the listener fails.
func (s *Source) runHTTP(ctx context.Context, ask func([]byte) *signaler.Refusal) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Address.At)
	if err != nil {
		return fmt.Errorf("handoff: listen on %s: %w", s.cfg.Address.At, err)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() { // whatever "localhost" is here
		ln.Close()
		return fmt.Errorf("handoff: listen on %s: %v is not a loopback address", s.cfg.Address.At, ln.Addr())
	}
	var work sync.WaitGroup // of connections: Server.Close does not wait for their handlers
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status, no := s.serve(w, r, ask)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			w.Write(Answer(no))
		}),
		ReadTimeout: s.signalTime, WriteTimeout: 2 * s.signalTime, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew: // Serve itself says so
				work.Add(1)
			case http.StateClosed:
				work.Done()
			}
		},
	}
	srv.SetKeepAlivesEnabled(false) // signals are rare, and connections are counted
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// It lets those finish that have a request, which takes milliseconds.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lingerTime)
		defer cancel()
		srv.Shutdown(late)
		srv.Close()
	})
	s.listening(ln.Addr().String())
	err = srv.Serve(&limited{Listener: ln, room: make(chan struct{}, s.cfg.MaxConns), over: func(c net.Conn) {
		s.log.Warn("signals: too many connections", "most", s.cfg.MaxConns)
		b := Answer(busy)
		fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	}})
	if !stop() {
		<-ended
	}
	srv.Close()
	work.Wait()
	return fmt.Errorf("handoff: %w", err)
}

// serve answers one request.
func (s *Source) serve(w http.ResponseWriter, r *http.Request, ask func([]byte) *signaler.Refusal) (int, *signaler.Refusal) {
	no := func(status int, code, text string) (int, *signaler.Refusal) {
		s.log.Warn("signals: request refused", "status", status, "reason", code)
		return status, &signaler.Refusal{Code: code, Message: text}
	}
	switch {
	// A page anywhere may make a browser here send a request, but not without
	// Origin, or under a name of its own (DNS rebinding).
	case len(r.Header["Origin"]) > 0:
		return no(http.StatusForbidden, "forbidden", "browsers have no business here")
	case !isLoopbackHost(r.Host):
		return no(http.StatusForbidden, "forbidden", "Host is not a loopback name")
	case !s.authorized(r):
		w.Header().Set("WWW-Authenticate", "Bearer")
		return no(http.StatusUnauthorized, "unauthenticated", "send the token as Authorization: Bearer TOKEN")
	case r.URL.Path != Path:
		return no(http.StatusNotFound, "not_found", "there is only POST "+Path)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		return no(http.StatusMethodNotAllowed, "bad_request", "there is only POST "+Path)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, signaler.MaxSize+slack))
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return no(http.StatusRequestEntityTooLarge, "bad_signal", fmt.Sprintf("signal: has more than %d bytes", signaler.MaxSize))
	case err != nil:
		return no(http.StatusBadRequest, "bad_request", "the body did not come whole")
	}
	refusal := ask(bytes.TrimSpace(body))
	switch {
	case refusal == nil:
		return http.StatusOK, nil
	case refusal == stopping:
		return http.StatusServiceUnavailable, refusal
	case refusal.Code == "bad_signal":
		return http.StatusBadRequest, refusal
	}
	return http.StatusConflict, refusal
}

// authorized compares hashes: of different lengths, tokens would be told apart by
// the time it takes.
func (s *Source) authorized(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(s.cfg.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// isLoopbackHost is for a Host header, with or without a port.
func isLoopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return isLoopback(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// direct is for Send: a request to this machine goes through no proxy, and the
// token follows no redirect.
var direct = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}
