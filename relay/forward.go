package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"websocketbridge/relay/cluster"
	"websocketbridge/relay/metrics"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// headerFrom is the address of the device, which the owner does not see, in a request
// that one node passes on to another.
const headerFrom = "Bridge-From"

// passedOn are the headers of a device's request that its owner needs.
var passedOn = []string{
	"Connection", "Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
	"Content-Type", "User-Agent", wire.HeaderTraceParent,
}

// forward passes a device's accept or reject on to the node that owns the bridge, and a
// requester whose signed URL works once to the one that made it.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, c token.Claims, path string) {
	began := time.Now()
	ctx, cut := context.WithCancel(r.Context())
	defer cut()
	ticket := path == wire.PathConnectSigned // and no bridge's token
	f := &forwarding{id: c.BridgeID, owner: c.Owner, cut: cut}
	kept := false
	defer func() {
		if !kept {
			s.forwards.remove(f)
		}
	}()
	err := s.forwards.add(f, ticket)
	var a *cluster.Answer
	if err == nil {
		a, err = s.askOwner(ctx, w, r, c.Owner, path)
	}
	if err != nil {
		s.refuseForward(w, r, c, path, err)
		return
	}
	trace := s.cfg.Tracer.Forward(a.Header.Get(wire.HeaderTraceParent), began)
	a.Header.Del(wire.HeaderTraceParent)
	trace.Set("owner", c.Owner)
	id := c.BridgeID
	if ticket { // the bridge has another
		id, _ = token.ParseID(a.Header.Get(wire.HeaderBridgeID))
	}
	switch a.Status {
	case http.StatusSwitchingProtocols, http.StatusNoContent, http.StatusGone: // it is used up; a ticket may be given back
		if soon := time.Now().Add(maxTokenLife); !ticket {
			s.forwards.spent.use(c.BridgeID, earlier(c.Expires, soon))
		}
	}
	if a.Status != http.StatusSwitchingProtocols {
		s.metrics.ForwardedOut(metrics.ForwardAnswered)
		trace.End()
		s.cfg.Logger.Info("owner refused", "path", r.URL.Path, "status", a.Status, "bridge", id.String(),
			"device", c.DeviceID, "owner", c.Owner, "from", s.from(r))
		copyAnswer(w, a)
		return
	}
	device, head, err := takeOver(w, a)
	if err != nil {
		trace.Fail(string(wire.BridgeGone))
		a.Close()
		s.refuseForward(w, r, c, path, fmt.Errorf("%w: answer the device: %w", errGone, err))
		return
	}
	trace.End()
	s.metrics.ForwardedOut(metrics.ForwardJoined)
	log := s.cfg.Logger.With("bridge", id.String(), "device", c.DeviceID, "owner", c.Owner)
	log.Info("forward open", "from", s.from(r), "took", time.Since(began).Round(time.Microsecond))
	joined, cutJoined := context.WithCancel(context.Background())
	if s.forwards.open(f, id, cutJoined) && s.cfg.Drain > 0 {
		s.work.Go(func() { s.leave(c.Owner, []token.ID{id}, false) })
	}
	kept = true
	s.work.Go(func() {
		defer cutJoined()
		defer s.forwards.remove(f)
		toDevice, toOwner := a.Join(joined, device, head)
		log.Info("forward closed", "duration", time.Since(began).Round(time.Millisecond), "to_device_bytes", toDevice, "to_owner_bytes", toOwner)
	})
}

// askOwner asks the owner what the device asks us.
func (s *Server) askOwner(ctx context.Context, w http.ResponseWriter, r *http.Request, owner, path string) (*cluster.Answer, error) {
	if s.cfg.Cluster == nil {
		return nil, errForeign
	}
	var body []byte
	if r.Method == http.MethodPost {
		var err error
		if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxReject)); err != nil {
			return nil, fmt.Errorf("%w: the body has more than %d bytes", errBadRequest, wire.MaxReject)
		}
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, path+"?"+r.URL.RawQuery, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadRequest, errors.New("the query is malformed")) // err quotes the token
	}
	for _, name := range passedOn {
		if v := r.Header.Values(name); len(v) > 0 {
			out.Header[name] = v
		}
	}
	out.Header.Set(headerFrom, s.from(r))
	ask := s.cfg.Cluster.Ask
	if path == wire.PathConnectSigned {
		ask = s.cfg.Cluster.AskLong // the owner holds its answer until the device is there
	}
	a, err := ask(ctx, owner, out)
	switch {
	case errors.Is(err, cluster.ErrNotPeer):
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errOwnerLost, err)
	}
	return a, nil
}

func (s *Server) refuseForward(w http.ResponseWriter, r *http.Request, c token.Claims, path string, err error) {
	s.metrics.ForwardedOut(metrics.ForwardFailed)
	s.badToken(err)
	p := problem(nil, err)
	if path != wire.PathConnectSigned { // where nobody has made a bridge yet
		p.BridgeID = c.BridgeID.String()
	}
	s.recordRefusedRequest(path, p.BridgeID, c.DeviceID, s.from(r), p)
	s.tell(slog.LevelWarn, "forward failed", p.Code, err, "path", r.URL.Path, "reason", p.Code, "bridge", p.BridgeID, "device", c.DeviceID, "owner", c.Owner, "from", s.from(r))
	writeProblem(w, p)
}

// copyAnswer gives the device the owner's no.
func copyAnswer(w http.ResponseWriter, a *cluster.Answer) {
	for _, name := range []string{"Content-Type", "Cache-Control", "Retry-After", "Allow", "Upgrade", "Connection", wire.HeaderBridgeID} {
		if v := a.Header.Values(name); len(v) > 0 {
			w.Header()[http.CanonicalHeaderKey(name)] = v
		}
	}
	w.WriteHeader(a.Status)
	w.Write(a.Body)
}

// takeOver answers the device with the owner's 101 and returns the connection below,
// and what was read from it too much.
func takeOver(w http.ResponseWriter, a *cluster.Answer) (net.Conn, []byte, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	head, _ := rw.Reader.Peek(rw.Reader.Buffered())
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	a.Header.Write(&out)
	out.WriteString("\r\n")
	conn.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := conn.Write(out.Bytes()); err != nil {
		conn.Close()
		return nil, nil, err
	}
	conn.SetDeadline(time.Time{})
	if p, ok := conn.(interface{ TCPConn() (*net.TCPConn, bool) }); ok { // behind a PROXY protocol header, which has been read
		if tcp, ok := p.TCPConn(); ok {
			conn = tcp // that layer has nothing to do any more
		}
	}
	return conn, head, nil
}

// maxTokenLife is that of a bridge token: longer than the longest wait for a device.
const maxTokenLife = MaxDialBack + tokenGrace

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// answerTimeout is for a device to take 300 bytes.
const answerTimeout = 5 * time.Second

// A forwarding is one request that was passed on.
type forwarding struct {
	id     token.ID
	owner  string
	opened bool
	cut    func() // ends it without a word
}

// forwards are this node's, with the limit that bridges have.
type forwards struct {
	max int

	mu       sync.Mutex // guards all below, and the fields of each
	draining bool
	over     bool // no forward may be from now on
	all      map[*forwarding]struct{}
	changed  chan struct{} // closed and replaced when one goes
	// spent are tokens whose owner has decided. It would refuse them again, but then
	// whoever has got hold of one could have this node dial as often as they like.
	spent *usedIDs
}

func newForwards(max int) *forwards {
	return &forwards{max: max, all: make(map[*forwarding]struct{}), changed: make(chan struct{}), spent: newUsedIDs()}
}

// add makes room for f. What is no bridge's token is not looked for among the spent ones.
func (t *forwards) add(f *forwarding, ticket bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !ticket && t.spent.used(f.id) {
		return errGone
	}
	if t.over {
		return errDraining
	}
	if len(t.all) >= t.max {
		return &limitError{limitForwards, fmt.Sprintf("the node forwards %d of at most %d bridges", len(t.all), t.max), 0}
	}
	t.all[f] = struct{}{}
	return nil
}

// open says that f carries bytes of a bridge from now on, and whether the node is draining.
func (t *forwards) open(f *forwarding, bridge token.ID, cut func()) (draining bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.id, f.opened, f.cut = bridge, true, cut
	if t.over {
		cut()
	}
	return t.draining
}

// remove gives f's room back.
func (t *forwards) remove(f *forwarding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.all[f]; !ok {
		return
	}
	delete(t.all, f)
	close(t.changed)
	t.changed = make(chan struct{})
}

// drain marks all as leaving, and returns the bridges of those that are open by owner.
func (t *forwards) drain() map[string][]token.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	byOwner := make(map[string][]token.ID)
	for f := range t.all {
		if f.opened {
			byOwner[f.owner] = append(byOwner[f.owner], f.id)
		}
	}
	return byOwner
}

// left returns how many there are, and a channel closed at the next change.
func (t *forwards) left() (int, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all), t.changed
}

// closeEmpty ends the taking of forwards if there is none: in one step, or one that came
// in between would keep the node from ending. Else it returns a channel closed at the
// next change.
func (t *forwards) closeEmpty() (closed bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = t.over || len(t.all) == 0
	return len(t.all) == 0, t.changed
}

// cutAll ends all without a word, and those that are about to open.
func (t *forwards) cutAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for f := range t.all {
		f.cut()
	}
}
