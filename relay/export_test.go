package relay

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"time"

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
	return signedURL{aim{u.DeviceID, u.Target, u.RequestData}, u.Expires, u.Principal, "", nil, policy.Decision{}}.query(keys)
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

// Take spends one of key's.
func (r Rates) Take(key string, now time.Time) time.Duration {
	wait, _ := r.r.take(key, now)
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

// AddForwardAfterStop is a request that comes between the last look and the closing of
// the listeners.
func (s *Server) AddForwardAfterStop() error {
	s.stop()
	return s.forwards.add(&forwarding{}, false)
}
