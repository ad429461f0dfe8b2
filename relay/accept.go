package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// accept serves /bridge/accept: a device dials back. via is the node that passed it on,
// empty if the device came here.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, via string) {
	claims, err := s.openToken(r, http.MethodGet)
	if err == nil {
		if err = ws.CheckUpgrade(r); err != nil && !errors.Is(err, ws.ErrNoUpgrade) {
			err = fmt.Errorf("%w: %w", errBadRequest, err)
		}
	}
	if err == nil && via == "" && s.elsewhere(claims) {
		s.forward(w, r, claims, wire.PathAccept)
		return
	}
	var b *bridge
	if err == nil {
		b, err = s.find(claims)
	}
	if err == nil && !b.move(waiting, joining) {
		err = errGone
	}
	if err != nil {
		s.refuseDevice(w, r, http.MethodGet, b, err)
		return
	}
	now := time.Now()
	span := b.connect.Accept(r.Header.Get(wire.HeaderTraceParent), now)
	defer span.End()
	span.Set("via", via)
	got := arrival{
		at: now, subprotocol: b.pick(ws.Offered(r)), via: via,
		err: fmt.Errorf("%w: the connection of device %q broke as it was answered", errDialBack, b.deviceID),
	}
	defer func() { b.arrived <- got }() // whoever serves the requester waits for it, whatever happens
	h := bridgeHeader(b)
	if parent := span.TraceParent(); via != "" && parent != "" { // for that node alone, which takes it out
		h.Set(wire.HeaderTraceParent, parent)
	}
	if conn, err := ws.Upgrade(w, r, got.subprotocol, h); err == nil {
		got.leg, got.err = pump.NewLeg(conn), nil
	}
}

// reject serves /bridge/reject: a device that cannot answer its hub says no.
func (s *Server) reject(w http.ResponseWriter, r *http.Request, via string) {
	claims, err := s.openToken(r, http.MethodPost)
	if err == nil && via == "" && s.elsewhere(claims) {
		s.forward(w, r, claims, wire.PathReject)
		return
	}
	var b *bridge
	if err == nil {
		b, err = s.find(claims)
	}
	if err != nil {
		s.refuseDevice(w, r, http.MethodPost, b, err)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxReject))
	var no signaler.Refusal
	if err == nil {
		no, err = parseReject(body)
	}
	if err != nil {
		s.refuseDevice(w, r, http.MethodPost, b, badRequest(`the body is not {"code":…,"message":…} of at most %d bytes`, wire.MaxReject))
		return
	}
	if !b.move(waiting, closed) {
		s.refuseDevice(w, r, http.MethodPost, b, errGone)
		return
	}
	b.ended <- &signaler.RefusedError{Refusal: no}
	w.WriteHeader(http.StatusNoContent)
}

// parseReject reads a device's no.
func parseReject(body []byte) (no signaler.Refusal, err error) {
	if err := json.Unmarshal(body, &no); err != nil {
		return no, err
	}
	if no.Code == "" {
		return no, errors.New("no code")
	}
	return no, nil
}

// openToken reads what a device brings.
func (s *Server) openToken(r *http.Request, method string) (token.Claims, error) {
	if r.Method != method {
		return token.Claims{}, errMethod
	}
	return s.cfg.Keys.Open(r.URL.Query().Get(wire.ParamBridgeToken), time.Now())
}

// elsewhere says whether another node owns the bridge.
func (s *Server) elsewhere(c token.Claims) bool {
	return c.Instance != s.instance && c.Owner != s.address()
}

// address is this node's own, sealed into its tokens; empty if it is the only one.
func (s *Server) address() string {
	if s.cfg.Cluster == nil {
		return ""
	}
	return s.cfg.Cluster.Address()
}

// find returns the bridge that a token of this node means. Our address with another
// instance ID is this node before it restarted, or a dead pod whose address it got.
func (s *Server) find(c token.Claims) (*bridge, error) {
	if c.Instance != s.instance {
		return nil, errGone
	}
	b := s.table.get(c.BridgeID)
	if b == nil || b.deviceID != c.DeviceID {
		return nil, errGone
	}
	return b, nil
}

// refuseDevice answers a device; allow is the method that path takes.
func (s *Server) refuseDevice(w http.ResponseWriter, r *http.Request, allow string, b *bridge, err error) {
	s.badToken(err)
	err = s.limits.failedToken(s.from(r), err)
	p := problem(b, err)
	if p.Code == wire.MethodNotAllowed {
		w.Header().Set("Allow", allow)
	}
	deviceID := ""
	if b != nil {
		deviceID = b.deviceID
	}
	path := wire.PathAccept
	if allow == http.MethodPost {
		path = wire.PathReject
	}
	s.recordRefusedRequest(path, p.BridgeID, deviceID, s.from(r), p)
	s.tell(slog.LevelInfo, "device refused", p.Code, err, "path", r.URL.Path, "reason", p.Code, "bridge", p.BridgeID, "from", s.from(r))
	writeProblem(w, p)
}
