package relay

import (
	"io"
	"net"
	"net/http"
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
		if s.table.isDraining() || s.stopping() {
			answer(w, http.StatusServiceUnavailable, "draining")
			return
		}
		if err := s.auditable(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, "ready")
	})
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
