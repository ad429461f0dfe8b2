package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"websocketbridge/relay/pump"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// accept serves /bridge/accept: a device dials back.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	b, err := s.openToken(r, http.MethodGet)
	if err == nil {
		if err = ws.CheckUpgrade(r); err != nil && !errors.Is(err, ws.ErrNoUpgrade) {
			err = fmt.Errorf("%w: %w", errBadRequest, err)
		}
	}
	if err == nil && !b.move(waiting, joining) {
		err = errGone
	}
	if err != nil {
		s.refuseDevice(w, r, http.MethodGet, b, err)
		return
	}
	got := arrival{subprotocol: b.pick(ws.Offered(r))}
	conn, err := ws.Upgrade(w, r, got.subprotocol, bridgeHeader(b))
	if err != nil {
		got.err = fmt.Errorf("%w: the connection of device %q broke as it was answered", errDialBack, b.deviceID)
	} else {
		got.leg = pump.NewLeg(conn)
	}
	b.arrived <- got // whoever serves the requester waits for it, whatever happens
}

// reject serves /bridge/reject: a device that cannot answer its hub says no.
func (s *Server) reject(w http.ResponseWriter, r *http.Request) {
	b, err := s.openToken(r, http.MethodPost)
	if err != nil {
		s.refuseDevice(w, r, http.MethodPost, b, err)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxReject))
	var no signaler.Refusal
	if err == nil {
		err = json.Unmarshal(body, &no)
	}
	if err != nil || no.Code == "" {
		s.refuseDevice(w, r, http.MethodPost, b, fmt.Errorf(`%w: the body is not {"code":…,"message":…} of at most %d bytes`, errBadRequest, wire.MaxReject))
		return
	}
	if !b.move(waiting, closed) {
		s.refuseDevice(w, r, http.MethodPost, b, errGone)
		return
	}
	b.refused <- &no
	w.WriteHeader(http.StatusNoContent)
}

// openToken finds the bridge a device means.
func (s *Server) openToken(r *http.Request, method string) (*bridge, error) {
	if r.Method != method {
		return nil, errMethod
	}
	claims, err := s.cfg.Keys.Open(r.URL.Query().Get(wire.ParamBridgeToken), time.Now())
	if err != nil {
		return nil, err
	}
	if claims.Instance != s.instance {
		// Our address under another instance ID: this node before it restarted.
		if claims.Owner == s.cfg.NodeAddress {
			return nil, errGone
		}
		return nil, errForeign
	}
	b := s.table.get(claims.BridgeID)
	if b == nil || b.deviceID != claims.DeviceID {
		return nil, errGone
	}
	return b, nil
}

// refuseDevice answers a device; allow is the method that path takes.
func (s *Server) refuseDevice(w http.ResponseWriter, r *http.Request, allow string, b *bridge, err error) {
	p := problem(b, err)
	if p.Code == wire.MethodNotAllowed {
		w.Header().Set("Allow", allow)
	}
	s.cfg.Logger.Info("device refused", "path", r.URL.Path, "reason", p.Code, "bridge", p.BridgeID, "from", r.RemoteAddr, "error", clean(err.Error(), maxLogged))
	writeProblem(w, p)
}
