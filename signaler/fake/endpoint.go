package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Handler returns the endpoint that doc.go describes. A connection of /signals
// ends with its request's context: give the http.Server a BaseContext. Serve
// does, and waits.
func (h *Hub) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /signals", h.serveSignals)
	mux.HandleFunc("GET /faults", h.getFaults)
	mux.HandleFunc("PUT /faults", h.putFaults)
	mux.HandleFunc("GET /devices", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Devices()) })
	return localOnly(mux)
}

// localOnly keeps browsers out. A page anywhere may connect to a loopback
// address, but not without Origin, or under a name of its own (DNS rebinding).
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.Header["Origin"]) > 0:
			http.Error(w, "browsers have no business here", http.StatusForbidden)
		case !loopbackHost(r.Host):
			http.Error(w, "Host is not a loopback name", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (h *Hub) getFaults(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Faults()) }

func (h *Hub) putFaults(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaults))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	var f Faults
	if err = decodeStrict(b, &f); err == nil {
		err = h.SetFaults(f)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, h.Faults())
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // an error means that the client has gone
}

// Serve serves the endpoint until ctx ends and then returns nil, after the last
// connection has ended. It closes ln. The endpoint has no authentication, so ln
// has to be on a loopback address.
func (h *Hub) Serve(ctx context.Context, ln net.Listener) error {
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		ln.Close()
		return fmt.Errorf("serve fake hub on %v: it has no authentication and listens on a loopback address only, such as 127.0.0.1:7071", ln.Addr())
	}
	return h.serve(ctx, ln)
}

func (h *Hub) serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	room := newRoom()
	srv := &http.Server{
		Handler:           room.wrap(h.Handler()),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second, // not of a WebSocket: it sets its own
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(ln)
	cancel() // the listener may have failed by itself
	srv.Close()
	room.leave()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve fake hub: %w", err)
}
