package relay

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// A signed URL that works once has a ticket: a token, sealed like those of bridges, that
// names the node which made the URL. Only that node can know whether it was used, so the
// others pass the request on to it, as they do with a device's accept.

// usedIDs remembers what was used up, until it would be worthless anyway.
type usedIDs struct {
	mu    sync.Mutex             // guards the two below
	until map[token.ID]time.Time // when what has this ID expires
	sweep int                    // how many are worth a look for expired ones
}

const minSweep = 1024

func newUsedIDs() *usedIDs {
	return &usedIDs{until: make(map[token.ID]time.Time), sweep: minSweep}
}

// use says whether id was not used yet, and marks it.
func (u *usedIDs) use(id token.ID, until time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.until[id]; ok {
		return false
	}
	u.until[id] = until
	if len(u.until) < u.sweep {
		return true
	}
	now := time.Now()
	for id, until := range u.until {
		if now.After(until) {
			delete(u.until, id)
		}
	}
	u.sweep = max(2*len(u.until), minSweep)
	return true
}

// used says whether id is marked.
func (u *usedIDs) used(id token.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.until[id]
	return ok
}

// giveBack takes the mark away.
func (u *usedIDs) giveBack(id token.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.until, id)
}

// newTicket makes the ticket of a URL.
func (s *Server) newTicket(deviceID string, expires time.Time) (string, error) {
	return s.cfg.Keys.Seal(token.Claims{
		Owner: s.address(), Instance: s.instance, BridgeID: token.NewID(), DeviceID: deviceID,
		Expires: expires.Add(time.Second), // seconds are cut; the URL's own time is the one that counts
	})
}

// openTicket reads the ticket of a URL whose signature is good.
func (s *Server) openTicket(u signedURL) (token.Claims, error) {
	c, err := s.cfg.Keys.Open(u.once, time.Now())
	if err != nil || c.DeviceID != u.deviceID {
		return token.Claims{}, fmt.Errorf("%w: its ticket is not good", errSignature)
	}
	return c, nil
}

// takeTicket uses b's ticket up. It is given back if b never opens: what did not work has
// not worked once.
func (s *Server) takeTicket(b *bridge, u signedURL) error {
	c, err := s.openTicket(u)
	switch {
	case err != nil:
		return err
	case c.Instance != s.instance:
		return errOnceLost
	case !s.once.use(c.BridgeID, c.Expires):
		return errOnceUsed
	}
	b.ticket = c.BridgeID
	return nil
}

// connectSigned serves /bridge/connectSigned.
func (s *Server) connectSigned(w http.ResponseWriter, r *http.Request) {
	c, ok := s.ticketElsewhere(r)
	if !ok {
		s.connect(w, r, true)
		return
	}
	err := s.limits.mayConnect(s.from(r))
	if err == nil && (s.table.isDraining() || s.stopping()) { // a bridge that can move only once should not begin here
		err = errDraining
	}
	if err != nil {
		b, _ := s.parseConnect(r)
		s.refuse(w, b, err)
		b.end(nil)
		return
	}
	s.forward(w, r, c, wire.PathConnectSigned)
}

// ticketElsewhere finds the node that has to know whether a URL was used. Whatever is
// wrong with the URL, connect will say.
func (s *Server) ticketElsewhere(r *http.Request) (c token.Claims, ok bool) {
	if s.cfg.Cluster == nil || s.cfg.MaxSignedTTL == 0 || r.Method != http.MethodGet {
		return c, false
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || !q.Has(wire.ParamOnce) {
		return c, false
	}
	u, err := openSigned(s.cfg.Keys, q, time.Now())
	if err != nil || u.once == "" {
		return c, false
	}
	c, err = s.openTicket(u)
	return c, err == nil && s.elsewhere(c)
}

var (
	errOnceUsed = errors.New("the signed URL was used already, and works once")
	errOnceLost = errors.New("the node that made the signed URL, which works once, is gone")
)
