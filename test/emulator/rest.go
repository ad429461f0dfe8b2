package emulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody is of a request: a method's payload and what is round it, with room.
const maxBody = 512 << 10

// serveHTTPS serves REST and both WebSockets until ctx ends.
func (h *Hub) serveHTTPS(ctx context.Context) error {
	conf := h.tls.Clone()
	conf.NextProtos = []string{"http/1.1"} // HTTP/2 has no Upgrade
	srv := &http.Server{
		Handler:           h.inCrowd(http.HandlerFunc(h.route)),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: h.cfg.HandshakeTimeout, // of the TLS handshake too
		IdleTimeout:       4 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				if !h.enter(c, socketHTTP) {
					hardClose(c)
				}
			case http.StateClosed, http.StateHijacked:
				h.leave(c)
			}
		},
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(tls.NewListener(h.https, conf))
	srv.Close()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// inCrowd makes Run wait for handlers: http.Server forgets those of WebSockets.
func (h *Hub) inCrowd(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		closed := h.closed
		if !closed {
			h.crowd.Add(1) // with mu: Run waits after it set closed
		}
		h.mu.Unlock()
		if closed {
			http.Error(w, "the hub stops", http.StatusServiceUnavailable)
			return
		}
		defer h.crowd.Done()
		next.ServeHTTP(w, r)
	})
}

// A request is one of REST whose path was understood.
type request struct {
	*http.Request
	id     identity
	body   []byte
	header http.Header // of the answer
}

// A restRoute is a method and a path. {d} stands for a device's ID, {m} for a module's.
type restRoute struct {
	method, path string
	need         right
	op           operation // whose rate it takes; operations: none
	serve        func(*Hub, *request) (status int, answer any, err *hubError)
}

var restRoutes = []restRoute{
	{"POST", "devices/query", serviceConnect, opQuery, (*Hub).restQuery},
	{"GET", "devices", registryRead, opRegistry, (*Hub).restList},
	{"GET", "devices/{d}", registryRead, opRegistry, (*Hub).restGet},
	{"PUT", "devices/{d}", registryWrite, opRegistry, (*Hub).restPut},
	{"DELETE", "devices/{d}", registryWrite, opRegistry, (*Hub).restDelete},
	{"DELETE", "devices/{d}/commands", serviceConnect, operations, (*Hub).restPurge},
	{"GET", "devices/{d}/modules", registryRead, opRegistry, (*Hub).restModules},
	{"GET", "devices/{d}/modules/{m}", registryRead, opRegistry, (*Hub).restGet},
	{"PUT", "devices/{d}/modules/{m}", registryWrite, opRegistry, (*Hub).restPut},
	{"DELETE", "devices/{d}/modules/{m}", registryWrite, opRegistry, (*Hub).restDelete},
	{"GET", "twins/{d}", serviceConnect, opRegistry, (*Hub).restGetTwin},
	{"PATCH", "twins/{d}", serviceConnect, opRegistry, (*Hub).restPatchTwin},
	{"PUT", "twins/{d}", serviceConnect, opRegistry, (*Hub).restPutTwin},
	{"POST", "twins/{d}/methods", serviceConnect, operations, (*Hub).restMethod},
	{"GET", "twins/{d}/modules/{m}", serviceConnect, opRegistry, (*Hub).restGetTwin},
	{"PATCH", "twins/{d}/modules/{m}", serviceConnect, opRegistry, (*Hub).restPatchTwin},
	{"PUT", "twins/{d}/modules/{m}", serviceConnect, opRegistry, (*Hub).restPutTwin},
	{"POST", "twins/{d}/modules/{m}/methods", serviceConnect, operations, (*Hub).restMethod},
	{"GET", "statistics/devices", registryRead, opRegistry, (*Hub).restDeviceStatistics},
	{"GET", "statistics/service", registryRead, opRegistry, (*Hub).restServiceStatistics},
}

// match compares a path, decoded by segments, and takes the IDs out of it.
func (rt *restRoute) match(segments []string) (id identity, ok bool) {
	want := strings.Split(rt.path, "/")
	if len(want) != len(segments) {
		return identity{}, false
	}
	for i, s := range segments {
		switch want[i] {
		case "{d}":
			id.Device = s
		case "{m}":
			id.Module = s
		default:
			if !strings.EqualFold(want[i], s) {
				return identity{}, false
			}
		}
	}
	return id, true
}

// route serves a request of any kind.
func (h *Hub) route(w http.ResponseWriter, r *http.Request) {
	segments, ok := split(r.URL.EscapedPath())
	if ok && slices.Equal(segments, []string{"$iothub", "websocket"}) {
		h.serveWebSocket(r.Context(), w, r)
		return
	}
	known := false
	for i := range restRoutes {
		rt := &restRoutes[i]
		id, ok := rt.match(segments)
		known = known || ok
		if ok && rt.method == r.Method {
			h.serveREST(w, r, rt, id)
			return
		}
	}
	if known {
		h.answerError(w, formOld, &hubError{Status: 405, Code: 405000, Name: "GenericMethodNotAllowed", Message: "The path does not know the method."})
		return
	}
	h.answerError(w, formOld, &hubError{Status: 404, Code: 404000, Name: "GenericNotFound", Message: "The emulator has no such path."})
}

// split decodes a path. An ID may hold what a path may not, and so is escaped.
func split(escaped string) (segments []string, ok bool) {
	for s := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") { // /devices/ is node's
		s, err := url.PathUnescape(s)
		if err != nil {
			return nil, false
		}
		segments = append(segments, s)
	}
	return segments, true
}

func (h *Hub) serveREST(w http.ResponseWriter, r *http.Request, rt *restRoute, id identity) {
	method := strings.HasSuffix(rt.path, "/methods")
	form := formOld
	if method {
		form = formNew
	}
	which := func(f *Faults) *AnswerFault { return f.REST }
	if method {
		which = func(f *Faults) *AnswerFault { return f.Method }
	}
	fail := func(err *hubError) { h.answerError(w, form, err) }

	if _, err := h.checkServiceToken(r.Header.Get("Authorization"), rt.need); err != nil {
		fail(err) // before the body: strangers are to cost no memory
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		fail(err)
		return
	}
	if done := h.answerFault(w, r, form, which, id); done {
		return
	}
	if rt.op != operations {
		if err := h.throttle(r.Context(), rt.op, 1); err != nil {
			fail(err)
			return
		}
	}
	q := &request{Request: r, id: id, body: body, header: w.Header()}
	status, answer, err := rt.serve(h, q)
	switch {
	case err != nil:
		fail(err)
	case r.Context().Err() != nil: // nobody reads it, or the hub stops
	default:
		h.answer(w, status, answer)
	}
}

// readBody reads a body that may take ten seconds. http.Server.ReadTimeout would
// end long calls, too: it also ends the read that notices that a client went.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *hubError) {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	control.SetReadDeadline(time.Time{})
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, errTooLarge(413, maxBody+1, maxBody)
		}
		return nil, errArgument("The body cannot be read.")
	}
	return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), nil
}

func (h *Hub) answer(w http.ResponseWriter, status int, answer any) {
	if answer == nil {
		w.WriteHeader(status)
		return
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
		h.answerError(w, formOld, errInternal())
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n"))) // an error means that the client has gone
}

func (h *Hub) answerError(w http.ResponseWriter, form errorForm, e *hubError) {
	switch h.Faults().ErrorForm {
	case "old":
		form = formOld
	case "new":
		form = formNew
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("iothub-errorcode", e.Name)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(e.Status)
	w.Write(e.body(form))
}

// answerFault does what the fault that which picks does; true: the request is
// answered, or its client has gone.
func (h *Hub) answerFault(w http.ResponseWriter, r *http.Request, form errorForm, which func(*Faults) *AnswerFault, id identity) bool {
	var f AnswerFault
	if !h.strikes(func(all *Faults) *Trigger {
		a := which(all)
		if a == nil {
			return nil
		}
		f = *a
		return &a.Trigger
	}, id.Device) {
		return false
	}
	if !sleep(r.Context(), time.Duration(f.Delay)) {
		return true
	}
	switch {
	case f.Stall:
		<-r.Context().Done()
	case f.Garbage:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, "<html><body><h1>502 Bad Gateway</h1></body></html>\n")
	case f.Error != "":
		e := faultErrors[f.Error]()
		e.RetryAfter = time.Duration(f.RetryAfter)
		h.answerError(w, form, e)
	default:
		return false
	}
	return true
}
