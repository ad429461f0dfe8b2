package emulator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serveAdmin serves the admin API that doc.go describes, until ctx ends.
func (h *Hub) serveAdmin(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Faults()) })
	mux.HandleFunc("PUT /faults", h.adminPutFaults)
	mux.HandleFunc("POST /actions", h.adminAction)
	mux.HandleFunc("POST /disconnect", h.adminDisconnect)
	mux.HandleFunc("GET /devices", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Devices()) })
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Stats()) })
	mux.HandleFunc("GET /events", h.adminEvents)
	srv := &http.Server{
		Handler:           h.inCrowd(localOnly(mux)),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(h.admin)
	srv.Close()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// localOnly keeps browsers out. A page anywhere may connect to a loopback
// address, but not without Origin, or under a name of its own (DNS rebinding).
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		switch {
		case len(r.Header["Origin"]) > 0:
			http.Error(w, "browsers have no business here", http.StatusForbidden)
		case !loopbackName(strings.Trim(host, "[]")):
			http.Error(w, "Host is not a loopback name", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// maxAdminBody is far more than any fault needs.
const maxAdminBody = 64 << 10

func adminBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
	}
	return b, err == nil
}

func (h *Hub) adminPutFaults(w http.ResponseWriter, r *http.Request) {
	b, ok := adminBody(w, r)
	if !ok {
		return
	}
	f, err := ParseFaults(b)
	if err == nil {
		err = h.SetFaults(f)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, h.Faults())
}

func (h *Hub) adminAction(w http.ResponseWriter, r *http.Request) {
	b, ok := adminBody(w, r)
	if !ok {
		return
	}
	var a Action
	err := decodeStrict(b, &a)
	if err == nil {
		err = h.Do(a)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// adminDisconnect is the action disconnect, or dropAll without a device.
func (h *Hub) adminDisconnect(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a := Action{Do: "disconnect", Device: q.Get("device"), Module: q.Get("module")}
	if a.Device == "" {
		a.Do = "dropAll"
	}
	if err := h.Do(a); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// adminEvents lists the telemetry after a number, and goes on with what comes.
func (h *Hub) adminEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after, err := strconv.ParseUint(cmp.Or(q.Get("after"), "0"), 10, 64)
	if err != nil {
		http.Error(w, "after is the seq of an event", http.StatusBadRequest)
		return
	}
	events, changed := h.eventsAfter(after)
	if q.Get("follow") == "" {
		if events == nil {
			events = []Event{}
		}
		writeJSON(w, events)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	control, enc := http.NewResponseController(w), json.NewEncoder(w)
	for {
		for _, e := range events {
			control.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if enc.Encode(e) != nil {
				return
			}
			after = e.Seq
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		events, changed = h.eventsAfter(after)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // an error means that the client has gone
}

// DeviceState is what the hub knows of a device or a module.
type DeviceState struct {
	ID        string   `json:"deviceId"`
	Module    string   `json:"moduleId,omitempty"`
	Disabled  bool     `json:"disabled,omitempty"`
	Connected bool     `json:"connected"`
	Listens   []string `json:"listens"` // methods, messages, desired properties
	Queued    int      `json:"queued"`  // messages, those that it has not settled too
}

// Devices returns every device and module, by ID.
func (h *Hub) Devices() []DeviceState {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []DeviceState{}
	for _, d := range h.devices {
		for r := range d.all {
			s := DeviceState{ID: r.id.Device, Module: r.id.Module, Disabled: d.disabled, Connected: r.link != nil, Listens: []string{}, Queued: len(r.messages)}
			for what := range listens {
				if r.takes(what) {
					s.Listens = append(s.Listens, what.String())
				}
			}
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b DeviceState) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Module, b.Module)) })
	return out
}
