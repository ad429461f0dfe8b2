package relay

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/pprof" // #nosec G108 -- what it adds to http.DefaultServeMux nobody serves
	"strconv"

	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// AdminHandler serves the admin listener. It has no authentication: bind it to
// loopback or to a network of your own. On loopback it answers to addresses and
// localhost only, or a web page whose name leads there could use it from a browser.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		io.WriteString(w, text+"\n")
	}
	mux.HandleFunc("GET "+wire.PathHealthz, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET "+wire.PathReadyz, func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.Handle("GET "+wire.PathMetrics, s.metrics.Handler())
	if s.cfg.PProf {
		// Its other handlers are found by the first one.
		mux.HandleFunc("GET "+wire.PathPProf, pprof.Index)
		mux.HandleFunc("GET "+wire.PathPProf+"profile", pprof.Profile)
		mux.HandleFunc("GET "+wire.PathPProf+"trace", pprof.Trace)
		mux.HandleFunc("GET "+wire.PathPProf+"symbol", pprof.Symbol)
		mux.HandleFunc("POST "+wire.PathPProf+"symbol", pprof.Symbol)
	}
	mux.HandleFunc("GET "+wire.PathBridges, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("local") {
			writeJSON(w, s.listing())
			return
		}
		writeJSON(w, s.listAll(r.Context()))
	})
	mux.HandleFunc("DELETE "+wire.PathBridges+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := token.ParseID(r.PathValue("id"))
		if err != nil {
			answer(w, http.StatusBadRequest, err.Error())
			return
		}
		if err := s.killAnywhere(r.Context(), id, r.RemoteAddr); err != nil {
			answer(w, http.StatusNotFound, err.Error())
			return
		}
		s.cfg.Logger.Info("bridge killed", "bridge", id.String(), "from", r.RemoteAddr)
		w.WriteHeader(http.StatusNoContent)
	})
	return s.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && local.IP.IsLoopback() && !isAddress(r.Host) {
			answer(w, http.StatusMisdirectedRequest, "this listener is on loopback, and answers to its address and to localhost, not to the host "+strconv.Quote(clean(r.Host, 100)))
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// ready says why the node takes no new bridges; nil: it does.
func (s *Server) ready() error {
	if s.table.isDraining() || s.stopping() {
		return errors.New("draining")
	}
	return s.auditable()
}
