package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

// Names of limits, in counts and in the log.
const (
	limitBridges           = "bridges"            // Config.MaxBridges
	limitWaiting           = "waiting"            // Config.MaxWaiting
	limitDeviceBridges     = "device_bridges"     // Config.MaxPerDevice
	limitPrincipalBridges  = "principal_bridges"  // Config.MaxPerPrincipal
	limitPrincipalConnects = "principal_connects" // Config.ConnectsPerPrincipal
	limitDeviceConnects    = "device_connects"    // Config.ConnectsPerDevice
	limitAddressConnects   = "address_connects"   // Config.ConnectsPerAddress
	limitFailures          = "failures"           // Config.FailuresPerAddress
	limitRuleBridges       = "rule_bridges"       // a rule's of the policy
	limitRuleConnects      = "rule_connects"
	limitRequests          = "requests"        // Config.MaxRequests
	limitForwards          = "forwards"        // Config.MaxBridges, of other nodes
	limitPending           = "pending"         // Config.MaxPending
	limitAddressPending    = "address_pending" // Config.MaxPendingPerAddress
)

var allLimits = []string{
	limitBridges, limitWaiting, limitDeviceBridges, limitPrincipalBridges, limitPrincipalConnects, limitDeviceConnects, limitAddressConnects,
	limitFailures, limitRuleBridges, limitRuleConnects, limitRequests, limitForwards, limitPending, limitAddressPending,
}

// A limitError is a limit that was reached.
type limitError struct {
	limit string
	text  string        // with the numbers, for whoever asked
	after time.Duration // until it is worth another try; 0: nobody knows
}

func (e *limitError) Error() string { return errLimit.Error() + ": " + e.text }
func (e *limitError) Unwrap() error { return errLimit }

// limits are the rates of a node, and the counts of what was refused for any limit.
type limits struct {
	trusts func(netip.Addr) bool

	// Bad bridge tokens of an address are not counted with bad credentials: devices and
	// requesters may share one, and the first must not shut the second out.
	principals, devices, addresses, failures, badTokens *rates

	mu          sync.Mutex // guards the two below
	refused     map[string]uint64
	requests    int
	maxRequests int
}

func newLimits(c Config) *limits {
	return &limits{
		trusts: c.Trusts, principals: newRates(c.ConnectsPerPrincipal), devices: newRates(c.ConnectsPerDevice),
		addresses: newRates(c.ConnectsPerAddress), failures: newRates(c.FailuresPerAddress), badTokens: newRates(c.FailuresPerAddress),
		refused: make(map[string]uint64), maxRequests: c.MaxRequests,
	}
}

// count counts one refusal.
func (l *limits) count(limit string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[limit]++
}

// enter counts a request that is being served, until leave.
func (l *limits) enter() (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.maxRequests > 0 && l.requests >= l.maxRequests {
		return nil, &limitError{limitRequests, fmt.Sprintf("the relay serves %d of at most %d requests at once", l.requests, l.maxRequests), 0}
	}
	l.requests++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.requests--
	}, nil
}

// address returns what counts as the address of a request from there. Proxies that are
// trusted have none: what they pass on is many people's.
func (l *limits) address(from string) (netip.Prefix, bool) {
	addr, ok := parseClient(from)
	if !ok || l.trusts(addr) {
		return netip.Prefix{}, false
	}
	return source(addr), true
}

// mayConnect spends one connect of an address, and refuses one that has failed to say
// who it is too often: it is not even heard, so that keys cannot be tried.
func (l *limits) mayConnect(from string) error {
	addr, ok := l.address(from)
	if !ok {
		return nil
	}
	now := time.Now()
	if wait, n := l.failures.spent(addr.String(), now); wait > 0 {
		return tooManyFailures(addr, n, wait)
	}
	if wait, n := l.addresses.take(addr.String(), now); wait > 0 {
		return &limitError{limitAddressConnects, fmt.Sprintf("%s has used up its %d connects a minute", sourceName(addr), n), wait}
	}
	return nil
}

func tooManyFailures(addr netip.Prefix, n int, wait time.Duration) error {
	return &limitError{limitFailures, fmt.Sprintf("%s has failed to authenticate more than %d times a minute", sourceName(addr), n), wait}
}

// failed counts err if it is a credential that was not good, and returns what to say
// instead where there were too many from that address.
func (l *limits) failed(from string, err error) error { return l.fail(l.failures, from, err) }

// failedToken is failed for a device's. Good tokens are taken however many bad ones came:
// they cannot be guessed.
func (l *limits) failedToken(from string, err error) error { return l.fail(l.badTokens, from, err) }

func (l *limits) fail(kind *rates, from string, err error) error {
	if !isAuthFailure(err) {
		return err
	}
	addr, ok := l.address(from)
	if !ok {
		return err
	}
	if wait, n := kind.take(addr.String(), time.Now()); wait > 0 {
		return tooManyFailures(addr, n, wait)
	}
	return err
}

func isAuthFailure(err error) bool {
	for _, fact := range []error{auth.ErrNoCredentials, auth.ErrBadCredentials, errSignature, token.ErrMalformed, token.ErrProof} {
		if errors.Is(err, fact) {
			return true
		}
	}
	return false
}

// mayReach spends one connect of whoever asks and one of the device.
func (l *limits) mayReach(b *bridge) error {
	now := time.Now()
	if name := b.payer(); name != "" {
		if wait, n := l.principals.take(name, now); wait > 0 {
			return &limitError{limitPrincipalConnects, fmt.Sprintf("%q has used up its %d connects a minute", name, n), wait}
		}
	}
	if wait, n := l.devices.take(b.deviceID, now); wait > 0 {
		return &limitError{limitDeviceConnects, fmt.Sprintf("device %q has used up its %d connects a minute", b.deviceID, n), wait}
	}
	return nil
}

// payer is the name under which a bridge counts: a signed URL's is that of who asked for
// it. Where nobody is asked who they are, nobody has a name.
func (b *bridge) payer() string {
	if b.principal == nil || b.principal.Method == auth.MethodNone {
		return ""
	}
	return strings.TrimPrefix(b.principal.Name, auth.SignedPrefix)
}

// Refused returns how often each limit has been the reason to refuse something, by the
// limit's name.
func (s *Server) Refused() map[string]uint64 {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	return maps.Clone(s.limits.refused)
}

// tell logs a refusal, and counts it if it was for a limit. What strangers can cause
// comes in storms, so only some lines of a kind are written.
func (s *Server) tell(level slog.Level, text string, code wire.Code, err error, args ...any) {
	kind := text + " " + string(code)
	if l := (*limitError)(nil); errors.As(err, &l) {
		s.limits.count(l.limit)
		kind += " " + l.limit
		args = append(args, "limit", l.limit)
	}
	s.calm.Log(level, kind, text, append(args, "error", clean(wire.Redact(err.Error()), maxLogged))...)
}

// limited refuses requests above what the node serves at once.
func (s *Server) limited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leave, err := s.limits.enter()
		if err != nil {
			s.tell(slog.LevelWarn, "request refused", wire.LimitReached, err, "from", s.from(r))
			writeProblem(w, problem(nil, err))
			return
		}
		defer leave()
		h.ServeHTTP(w, r)
	})
}
