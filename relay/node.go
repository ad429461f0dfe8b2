package relay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"websocketbridge/relay/cluster"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// Paths of the node port, besides those of the public listener that devices use.
const (
	pathLeave = "/leave" // POST leaving

	maxLeaving = 1 << 20 // bytes; 10 000 IDs have 300 000
)

// nodeHandler serves peers, which have proven to be that. It asks nobody in turn.
func (s *Server) nodeHandler() http.Handler {
	mux := http.NewServeMux()
	// The owner's log has the device's or requester's address, not the peer's.
	asDevice := func(h func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s.metrics.ForwardedIn()
			via := cmp.Or(r.Header.Get(cluster.HeaderNode), r.RemoteAddr)
			r.RemoteAddr = cmp.Or(r.Header.Get(headerFrom), r.RemoteAddr)
			h(w, r, clean(via, maxLogged))
		}
	}
	mux.HandleFunc(wire.PathAccept, asDevice(s.accept))
	mux.HandleFunc(wire.PathReject, asDevice(s.reject))
	mux.HandleFunc(wire.PathConnectSigned, asDevice(func(w http.ResponseWriter, r *http.Request, _ string) { s.connect(w, r, true) }))
	mux.HandleFunc("POST "+pathLeave, s.left)
	mux.HandleFunc("GET "+wire.PathBridges, func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, s.listing())
	})
	mux.HandleFunc("DELETE "+wire.PathBridges+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := token.ParseID(r.PathValue("id"))
		by := killer{cmp.Or(r.Header.Get(headerFrom), r.RemoteAddr), clean(cmp.Or(r.Header.Get(cluster.HeaderNode), r.RemoteAddr), maxLogged)}
		if err != nil || !s.kill(id, by) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return s.guard(mux)
}

// A listedBridge is one bridge in an answer of GET /bridges.
type listedBridge struct {
	ID        string    `json:"bridgeId"`
	State     string    `json:"state"` // waiting, joining, open
	Device    string    `json:"deviceId"`
	Principal string    `json:"principal"`
	Rule      string    `json:"rule,omitempty"` // of the policy, that allowed it
	Target    string    `json:"target,omitempty"`
	Since     time.Time `json:"since"`
	Node      string    `json:"node,omitempty"` // the owner
	Via       string    `json:"via,omitempty"`  // the node that the device reached, if another
}

// A listing is what GET /bridges answers: those of this node, or of all.
type listing struct {
	Bridges []listedBridge `json:"bridges"`
	// Missing are nodes that did not answer, and why. Incomplete: there may be others
	// that this node does not know by address.
	Missing    map[string]string `json:"missing,omitempty"`
	Incomplete bool              `json:"incomplete,omitempty"`
}

func (s *Server) listing() listing {
	l := listing{Bridges: s.table.list()}
	for i := range l.Bridges {
		l.Bridges[i].Node = s.address()
	}
	return l
}

var stateNames = map[state]string{waiting: "waiting", joining: "joining", open: "open", closed: "closed"}

// list returns all bridges, the oldest first.
func (t *table) list() []listedBridge {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]listedBridge, 0, len(t.bridges))
	for _, b := range t.bridges {
		all = append(all, listedBridge{
			ID: b.id.String(), State: stateNames[state(b.state.Load())], Device: b.deviceID, Principal: b.principal.Name, Rule: b.permit.Rule(), Target: b.target,
			Since: b.created.UTC().Round(time.Millisecond), Via: b.via,
		})
	}
	slices.SortFunc(all, func(a, b listedBridge) int { return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID)) })
	return all
}

// listAll asks all nodes.
func (s *Server) listAll(ctx context.Context) listing {
	all := s.listing()
	var mu sync.Mutex // guards all
	all.Incomplete = s.askAll(ctx, http.MethodGet, wire.PathBridges, "", func(node string, a *cluster.Answer, err error) {
		var l listing
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("it answered %d", a.Status)
		}
		if err == nil {
			err = json.Unmarshal(a.Body, &l)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			if all.Missing == nil {
				all.Missing = make(map[string]string)
			}
			all.Missing[node] = clean(err.Error(), maxLogged)
			return
		}
		all.Bridges = append(all.Bridges, l.Bridges...)
	})
	slices.SortStableFunc(all.Bridges, func(a, b listedBridge) int { return a.Since.Compare(b.Since) })
	return all
}

// maxAsking is how many peers are asked at once.
const maxAsking = 16

// askAll asks every peer that can be named, and says whether there may be more. from is
// who asks this node, if the others have to know.
func (s *Server) askAll(ctx context.Context, method, path, from string, got func(node string, a *cluster.Answer, err error)) (incomplete bool) {
	if s.cfg.Cluster == nil {
		return false
	}
	peers, complete := s.cfg.Cluster.List(ctx)
	room := make(chan struct{}, maxAsking)
	var asked sync.WaitGroup
	for _, node := range peers {
		room <- struct{}{}
		asked.Go(func() {
			defer func() { <-room }()
			r, err := http.NewRequestWithContext(ctx, method, path, nil)
			var a *cluster.Answer
			if err == nil {
				if from != "" {
					r.Header.Set(headerFrom, from)
				}
				a, err = s.cfg.Cluster.Ask(ctx, node, r)
			}
			got(node, a, err)
		})
	}
	asked.Wait()
	return !complete
}

// A killer is an operator.
type killer struct {
	from string // the operator's address
	via  string // the node that was asked, if it is another
}

// kill ends a bridge of this node.
func (s *Server) kill(id token.ID, by killer) bool {
	if b := s.table.get(id); b != nil {
		s.recordKilled(b, by.from, by.via)
	}
	return s.end(id, &pump.Stop{Code: wire.Killed, Text: "an operator of the relay ended the bridge"})
}

// end ends a bridge of this node, whatever state it is in.
func (s *Server) end(id token.ID, why *pump.Stop) bool {
	b := s.table.get(id)
	if b == nil {
		return false
	}
	if b.move(waiting, closed) {
		err := errDraining
		switch why.Code {
		case wire.Killed:
			err = errKilled
		case wire.PermissionRevoked:
			err = fmt.Errorf("%w: %s", errRevoked, why.Text)
		}
		b.ended <- err
	}
	b.end(why) // of no effect on one that never opens
	return true
}

// errUnknownBridge: no node that answered has it.
var errUnknownBridge = errors.New("no such bridge")

// killAnywhere ends a bridge wherever it is.
func (s *Server) killAnywhere(ctx context.Context, id token.ID, from string) error {
	if s.kill(id, killer{from: from}) {
		return nil
	}
	var mu sync.Mutex // guards the two below
	found := false
	var missing []string
	incomplete := s.askAll(ctx, http.MethodDelete, wire.PathBridges+"/"+id.String(), from, func(node string, a *cluster.Answer, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			missing = append(missing, clean(err.Error(), maxLogged))
		case a.Status == http.StatusNoContent:
			found = true
		}
	})
	switch {
	case found:
		return nil
	case len(missing) > 0:
		slices.Sort(missing)
		return fmt.Errorf("%w on the nodes that answered; these did not: %s", errUnknownBridge, strings.Join(missing, "; "))
	case incomplete:
		return fmt.Errorf("%w here or on a node that is known by address; ask its owner", errUnknownBridge)
	}
	return errUnknownBridge
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(v)
}
