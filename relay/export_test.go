package relay

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
)

// SignedURL is what a signed URL says.
type SignedURL struct {
	DeviceID, Target, RequestData, Principal string
	Expires                                  time.Time
}

// Query signs u.
func (u SignedURL) Query(keys *token.Ring) string {
	return signedURL{aim{u.DeviceID, u.Target, u.RequestData}, u.Expires, u.Principal, nil, policy.Decision{}}.query(keys)
}

// OpenSigned reads and checks the query of a signed URL.
func OpenSigned(keys *token.Ring, query string, now time.Time) (SignedURL, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return SignedURL{}, err
	}
	u, err := openSigned(keys, q, now)
	return SignedURL{u.deviceID, u.target, u.requestData, u.principal, u.expires}, err
}

// ClientAddr is for the tests of what proxies say.
var ClientAddr = clientAddr

// Rates is for the tests of token buckets by key.
type Rates struct{ r *rates }

// NewRates returns buckets of so many a minute.
func NewRates(perMinute int) Rates { return Rates{newRates(perMinute)} }

// Take spends one of key's; perMinute is key's own number.
func (r Rates) Take(key string, perMinute int, now time.Time) time.Duration {
	wait, _ := r.r.take(key, perMinute, now)
	return wait
}

// Spent is Take without taking.
func (r Rates) Spent(key string, now time.Time) time.Duration {
	wait, _ := r.r.spent(key, now)
	return wait
}

// Len is how many keys are remembered; MaxRated is the most there can be.
func (r Rates) Len() int { return len(r.r.by) }

const MaxRated = maxRated

// Reservations is a node's table for principals with numbers of their own.
type Reservations struct{ t *table }

// NewReservations returns the empty table of a node with cfg.
func NewReservations(cfg Config) Reservations { return Reservations{newTable(cfg.withDefaults())} }

// Add reserves room for a bridge, which remove gives back.
func (r Reservations) Add(p *auth.Principal, device string, bridges int) (remove func(), err error) {
	b := &bridge{id: token.NewID(), principal: p, aim: aim{deviceID: device}, caps: caps{bridges: bridges}, end: func(error) {}}
	return func() { r.t.remove(b) }, r.t.add(b)
}

// Empty says whether nothing is counted any more.
func (r Reservations) Empty() bool {
	return len(r.t.bridges)+len(r.t.devices)+len(r.t.payers)+r.t.waiting == 0
}

// Source is what counts as one address.
var Source = source

// PendingConns is how many connections wait for a request.
func (s *Server) PendingConns() int {
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	return len(s.pending.all)
}

// ParseOrigin reads the header Origin.
func ParseOrigin(s string) (scheme, host string, ok bool) {
	o, ok := parseOrigin(s)
	return o.scheme, o.host, ok
}

// ParseOrigins reads Config.Origins; the function returned says whether a page may.
func ParseOrigins(list []string) (func(page string) bool, error) {
	all, err := parseOrigins(list)
	return func(page string) bool {
		o, ok := parseOrigin(page)
		return ok && slices.ContainsFunc(all, func(a origin) bool { return a.matches(o) })
	}, err
}

// ParseConnect reads a request of a requester's: what it asks for, and its offers.
func (s *Server) ParseConnect(r *http.Request) (device, target, data string, offered []string, early bool, err error) {
	b, err := s.parseConnect(r)
	defer b.end(nil)
	return b.deviceID, b.target, b.requestData, b.offered, b.early, err
}

// RefusalBody is what the requester is answered for a device's reject; nil: it is none.
func RefusalBody(reject []byte) []byte {
	no, err := parseReject(reject)
	if err != nil {
		return nil
	}
	b := &bridge{aim: aim{deviceID: "d"}}
	w := httptest.NewRecorder()
	writeProblem(w, problem(b, &signaler.RefusedError{Refusal: no}))
	return w.Body.Bytes()
}

// CloseReason is the text of the close frame for the same.
func CloseReason(reject []byte) string {
	no, err := parseReject(reject)
	if err != nil {
		return ""
	}
	return closeReason(problem(&bridge{aim: aim{deviceID: "d"}}, &signaler.RefusedError{Refusal: no}))
}
