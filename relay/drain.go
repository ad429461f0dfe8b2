package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"websocketbridge/relay/cluster"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// drain refuses new bridges, asks the requesters of open ones to move, and waits for
// all there are: until the deadline, or until Kill. A balancer that has not noticed yet
// still sends requesters here for Config.LameDuck, who are told to try again.
func (s *Server) drain() {
	open := s.table.drain(s.cfg.Drain > 0, time.Now().Add(s.cfg.Drain))
	noticed := time.NewTimer(s.cfg.LameDuck)
	defer noticed.Stop()
	if s.cfg.Drain > 0 { // or nobody has time for that
		for _, leg := range open {
			s.move(leg)
		}
		s.leaveAll(false)
		s.waitForAll()
	}
	if s.cfg.LameDuck > 0 {
		select {
		case <-noticed.C:
		case <-s.ctx.Done():
		}
	}
}

// waitForAll waits for all bridges and forwards there are, until the deadline or Kill.
func (s *Server) waitForAll() {
	deadline := time.NewTimer(s.cfg.Drain)
	defer deadline.Stop()
	for logged := false; ; {
		bridges, goes := s.table.left()
		forwards, ends := s.forwards.left()
		if bridges+forwards == 0 {
			return
		}
		if !logged {
			s.cfg.Logger.Info("draining", "bridges", bridges, "forwards", forwards, "deadline", s.cfg.Drain)
			logged = true
		}
		select {
		case <-goes:
		case <-ends:
		case <-deadline.C:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// stop ends what is left: bridges with a close frame, forwards by asking their owners
// for one. It returns when no forward is left, and none can be added.
func (s *Server) stop() {
	s.table.drain(false, time.Now())
	s.cancel(&pump.Stop{Code: wire.Draining, Text: "the node stops; connect again"})
	s.leaveAll(true)
	deadline := time.NewTimer(cluster.Linger)
	defer deadline.Stop()
	for {
		closed, ends := s.forwards.closeEmpty()
		if closed {
			return
		}
		select {
		case <-ends:
		case <-deadline.C: // an owner that did not hear us
			s.forwards.cutAll()
		}
	}
}

// stopping says that nothing may live on.
func (s *Server) stopping() bool { return s.ctx.Err() != nil }

// Kill ends every bridge now, and with them a drain.
func (s *Server) Kill() {
	s.cancel(&pump.Stop{Code: wire.Draining, Text: "the node was told to stop now; connect again"})
}

// leaveAll asks the owners of all forwarded bridges to have their requesters move, or
// to close them now. It returns when each has answered, or did not in time.
func (s *Server) leaveAll(now bool) {
	var asked sync.WaitGroup
	for owner, ids := range s.forwards.drain() {
		asked.Go(func() { s.leave(owner, ids, now) })
	}
	asked.Wait()
}

// A leaving is the body of pathLeave on the node port.
type leaving struct {
	Bridges []token.ID `json:"bridges"`
	// Now: they end, with the code of a drain. Otherwise their requesters are asked
	// to move.
	Now bool `json:"now"`
}

// leave tells one owner.
func (s *Server) leave(owner string, bridges []token.ID, now bool) {
	body, _ := json.Marshal(leaving{bridges, now})
	r, err := http.NewRequest(http.MethodPost, pathLeave, bytes.NewReader(body))
	if err == nil {
		_, err = s.cfg.Cluster.Ask(context.Background(), owner, r)
	}
	if err != nil {
		s.cfg.Logger.Warn("owner does not hear that this node drains", "owner", owner, "bridges", len(bridges), "error", clean(err.Error(), maxLogged))
	}
}

// left serves pathLeave: a node through which devices of ours came drains.
func (s *Server) left(w http.ResponseWriter, r *http.Request) {
	var l leaving
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLeaving)).Decode(&l); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, id := range l.Bridges {
		if l.Now {
			s.end(id, &pump.Stop{Code: wire.Draining, Text: "the node through which the device came stops; connect again"})
		} else if leg := s.table.toMove(id); leg != nil {
			s.move(leg)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
