package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// connect serves /bridge/connect and /bridge/connectSigned: a requester names a device
// and waits. signed says that its URL is its credential.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, signed bool) {
	b, err := s.parseConnect(r)
	b.signed = signed
	defer func() { // whatever happened, room is kept by an open bridge only
		if !b.opened {
			s.letGo(b)
			b.end(nil)
		}
	}()
	// An early requester is refused after its 101, so that is all it needs first; but a
	// refusal with a close frame takes seconds if the other end wants it to, so nobody
	// gets there more often than an address may connect.
	if b.early = b.early && ws.CheckUpgrade(r) == nil && s.origin(r, signed) == nil && !s.stopping(); b.early {
		if limit := s.limits.mayConnect(b.from); limit != nil {
			s.refuse(w, b, limit)
			return
		}
		b.charged = true
		s.connectEarly(w, r, b, err)
		return
	}
	if err == nil {
		err = s.admit(r, b)
	}
	if err != nil {
		s.refuse(w, b, err)
		return
	}
	got, err := s.await(r.Context(), b)
	if err != nil {
		s.refuse(w, b, err)
		return
	}
	conn, err := ws.Upgrade(w, r, got.subprotocol, bridgeHeader(b))
	if err != nil {
		s.refuse(w, b, fmt.Errorf("%w: answer it: %w", errLeft, err))
		got.leg.Close(wire.CloseGoingAway, wire.Reason{Code: wire.PeerLost, Text: "the requester left"}.String())
		return
	}
	s.run(b, pump.NewLeg(conn), got)
}

// connectEarly answers 101 first. err is what parsing found.
func (s *Server) connectEarly(w http.ResponseWriter, r *http.Request, b *bridge, err error) {
	if len(b.offered) > 1 {
		b.offered = b.offered[:1]
	}
	conn, upErr := ws.Upgrade(w, r, strings.Join(b.offered, ""), bridgeHeader(b))
	if upErr != nil {
		s.refuse(w, b, fmt.Errorf("%w: answer it: %w", errLeft, upErr))
		return
	}
	leg := pump.NewLeg(conn)
	defer func() {
		if !b.opened { // it is closed, but for a panic
			conn.Close()
		}
	}()
	if err == nil {
		err = s.admit(r, b)
	}
	if err != nil {
		s.refuseEarly(leg, b, err)
		return
	}
	// Watch notices a requester that leaves, which net/http no longer does.
	ctx, cancel := context.WithCancelCause(s.ctx)
	watched := make(chan struct{})
	s.work.Go(func() {
		defer close(watched)
		if err := leg.Watch(ctx); err != nil {
			cancel(fmt.Errorf("%w: %w", errLeft, err))
		}
	})
	got, err := s.await(ctx, b)
	cancel(nil)
	<-watched
	if err == nil && len(b.offered) > 0 && got.subprotocol == "" {
		got.leg.Close(wire.ClosePolicy, wire.Reason{Code: wire.DeviceRefused, Text: errSubprotocol.Error()}.String())
		err = errSubprotocol
	}
	if err != nil {
		s.refuseEarly(leg, b, err)
		return
	}
	s.run(b, leg, got)
}

// parseConnect reads the query. Its bridge is never nil: what could be read is
// in it, for the log.
func (s *Server) parseConnect(r *http.Request) (*bridge, error) {
	now := time.Now()
	b := &bridge{
		id: token.NewID(), created: now, offered: ws.Offered(r), from: s.from(r),
		arrived: make(chan arrival, 1), ended: make(chan error, 1),
	}
	b.began = now
	if parent := r.Header.Get(wire.HeaderTraceParent); wire.TraceID(parent) != "" {
		b.traceparent = parent
	}
	b.live, b.end = context.WithCancelCause(s.ctx)
	q, err := parseQuery(r)
	if err != nil {
		return b, err
	}
	switch up := q.Get(wire.ParamUpgrade); up {
	case "":
	case wire.UpgradeEarly:
		b.early = true
	default:
		return b, badRequest("%s can only be %q", wire.ParamUpgrade, wire.UpgradeEarly)
	}
	if b.aim, err = parseAim(q); err != nil {
		return b, err
	}
	if len(b.offered) > wire.MaxSubprotocols {
		return b, badRequest("%d subprotocols are offered; %d are allowed", len(b.offered), wire.MaxSubprotocols)
	}
	for _, p := range b.offered {
		if err := wire.CheckSubprotocol(p); err != nil {
			return b, badRequest("subprotocol %.40q %w", p, err)
		}
	}
	if r.ContentLength != 0 {
		return b, badRequest("a handshake has no body")
	}
	return b, nil
}

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errBadRequest, fmt.Errorf(format, args...))
}

// maxQuery is the longest query: what any URL of ours can have when every byte of its
// parameters is escaped.
const maxQuery = 14 << 10

func parseQuery(r *http.Request) (url.Values, error) {
	if n := len(r.URL.RawQuery); n > maxQuery {
		return nil, badRequest("the query has %d bytes; %d are allowed", n, maxQuery)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query is malformed") // err quotes it
	}
	return q, nil
}

// single returns the value of a parameter, empty if it is not there.
func single(q url.Values, name string) (string, error) {
	if n := len(q[name]); n > 1 {
		return "", badRequest("%s is there %d times", name, n)
	}
	return q.Get(name), nil
}

// parseAim reads the parameters that say what a requester wants. What could be read
// is returned with an error, too.
func parseAim(q url.Values) (aim, error) {
	var a aim
	for _, p := range []struct {
		name  string
		to    *string
		check func(string) error
	}{
		{wire.ParamDeviceID, &a.deviceID, wire.CheckDeviceID},
		{wire.ParamTarget, &a.target, checkTargets},
		{wire.ParamRequestData, &a.requestData, wire.CheckRequestData},
	} {
		value, err := single(q, p.name)
		if err != nil {
			return a, err
		}
		if !q.Has(p.name) && p.name == wire.ParamDeviceID {
			return a, badRequest("%s is missing", p.name)
		}
		if err := p.check(value); err != nil {
			return a, badRequest("%s %w", p.name, err)
		}
		*p.to = value
	}
	return a, nil
}

func checkTargets(s string) error {
	_, err := wire.SplitTargets(s)
	return err
}

// admit decides whether b may be tried and reserves room for it.
func (s *Server) admit(r *http.Request, b *bridge) error {
	if r.Method != http.MethodGet {
		return errMethod
	}
	var err error
	if b.principal, err = s.authenticate(r, b); err != nil {
		return err
	}
	s.known(b)
	if !b.early { // an early one has been upgraded
		if err := ws.CheckUpgrade(r); errors.Is(err, ws.ErrNoUpgrade) {
			return err
		} else if err != nil {
			return fmt.Errorf("%w: %w", errBadRequest, err)
		}
		if err := s.origin(r, b.signed); err != nil {
			return err
		}
	}
	if b.permit, err = s.permit(b.principal, b.aim, time.Now()); err != nil {
		return err
	}
	b.granted = true
	if err := s.auditable(); err != nil {
		return err
	}
	if err := s.limits.mayReach(b); err != nil {
		return err
	}
	b.created = time.Now() // an early 101 may have taken a while
	s.hold(b)
	if err := s.table.add(b); err != nil {
		return err
	}
	if s.cfg.Revoke { // what changed in between, Recheck may not have seen b for
		_, err = s.stillPermitted(b, time.Now())
	}
	return err
}

// authenticate says who asks, unless their address has asked too often.
func (s *Server) authenticate(r *http.Request, b *bridge) (p *auth.Principal, err error) {
	if b == nil || !b.charged {
		if err := s.limits.mayConnect(s.from(r)); err != nil {
			return nil, err
		}
	}
	if b != nil && b.signed {
		p, err = s.authenticateSigned(r, b)
	} else {
		p, err = s.cfg.Auth.Authenticate(r)
	}
	if err != nil {
		return nil, s.limits.failed(s.from(r), err)
	}
	return p, nil
}

// allowed says whether p may reach all of it.
func (a aim) allowed(p *auth.Principal) error {
	for _, target := range a.targets() {
		if err := p.Allow(a.deviceID, target); err != nil {
			return err
		}
	}
	return nil
}

// targets are the names, or the empty one for the device's default.
func (a aim) targets() []string {
	names, _ := wire.SplitTargets(a.target) // parseAim has checked it
	if len(names) == 0 {
		return []string{""}
	}
	return names
}

// awaitDevice signals the device and waits for it to come. ctx ends when the requester
// leaves.
func (s *Server) awaitDevice(ctx context.Context, b *bridge) (_ arrival, err error) {
	b.asking()
	defer func() { b.came(err) }()
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.DialBack,
		fmt.Errorf("%w: device %q did not dial back within %v", errDialBack, b.deviceID, s.cfg.DialBack))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	signaled := make(chan error, 1)
	// A device may dial before the hub has told that it was told. The signal gets a
	// moment to end then: cutting a request short costs the signaler its connection.
	sctx, abandon := context.WithTimeoutCause(context.WithoutCancel(ctx), s.cfg.DialBack+signalGrace, errDialBack)
	leave := context.AfterFunc(ctx, abandon)
	s.work.Go(func() {
		defer abandon()
		defer context.AfterFunc(s.ctx, abandon)()
		signaled <- s.signal(sctx, b)
	})
	for {
		select {
		case got := <-b.arrived:
			leave()
			time.AfterFunc(signalGrace, abandon)
			return got, got.err
		case err := <-b.ended:
			return arrival{}, err
		case err := <-signaled:
			signaled = nil
			if err == nil || errors.Is(err, signaler.ErrTimedOut) || ctx.Err() != nil {
				continue // it may come all the same; ctx has the last word
			}
			if b.move(waiting, closed) {
				return arrival{}, err
			}
		case <-ctx.Done():
			if b.move(waiting, closed) {
				return arrival{}, s.awaitError(ctx)
			}
			select { // decided already: it is being handed over
			case err := <-b.ended:
				return arrival{}, err
			case got := <-b.arrived:
				return got, got.err
			}
		}
	}
}

func (s *Server) awaitError(ctx context.Context) error {
	switch cause := context.Cause(ctx); {
	case s.ctx.Err() != nil:
		return errDraining
	case errors.Is(cause, errDialBack), errors.Is(cause, errLeft):
		return cause
	default: // net/http ends a request's context when its connection ends
		return errLeft
	}
}

// signal makes the token and hands the signal over. A signaler that panics costs one
// bridge, not the node.
func (s *Server) signal(ctx context.Context, b *bridge) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, "bridge", b.id.String())
			err = errors.New("the signaler panicked")
		}
	}()
	expires := b.created.Add(s.cfg.DialBack + tokenGrace)
	tok, err := s.cfg.Keys.Seal(token.Claims{
		Owner: s.address(), Instance: s.instance, BridgeID: b.id, DeviceID: b.deviceID, Expires: expires,
	})
	if err != nil {
		return fmt.Errorf("seal token: %w", err)
	}
	q := url.Values{wire.ParamBridgeToken: {tok}}.Encode()
	accept := *s.public.JoinPath(wire.PathAccept)
	accept.RawQuery = q
	reject := *s.public.JoinPath(wire.PathReject)
	reject.RawQuery = q
	reject.Scheme = strings.Replace(reject.Scheme, "ws", "http", 1)
	sig := &signaler.Signal{
		AcceptURL: accept.String(), RejectURL: reject.String(), RequestData: b.requestData, Version: wire.Version,
		BridgeID: b.id.String(), DeviceID: b.deviceID, Target: b.target, Principal: b.principal.Name,
		ExpiresAt: expires, Subprotocols: b.offered,
	}
	if s.cfg.Signer != nil {
		s.cfg.Signer.Sign(sig)
	}
	if err := s.handOver(ctx, b, sig); err != nil {
		return fmt.Errorf("signal device: %w", err)
	}
	return nil
}

func bridgeHeader(b *bridge) http.Header {
	return http.Header{wire.HeaderBridgeID: {b.id.String()}}
}

// letGo gives back what a bridge that does not open has taken: its room, and the use of a
// URL that works once, which has not worked.
func (s *Server) letGo(b *bridge) {
	s.table.remove(b)
	if !b.ticket.IsZero() {
		s.once.giveBack(b.ticket)
		b.ticket = token.ID{}
	}
}

// refuse answers a requester that was not upgraded. It gives the room back first:
// who has read the answer may try again at once.
func (s *Server) refuse(w http.ResponseWriter, b *bridge, err error) {
	s.letGo(b)
	s.logRefused(b, err)
	if errors.Is(err, errLeft) {
		abort(w)
		return
	}
	if errors.Is(err, errMethod) {
		w.Header().Set("Allow", http.MethodGet)
	}
	writeProblem(w, problem(b, err))
}

// abort ends a connection whose peer has gone or spoken out of turn. An answer
// could be taken for a good one: net/http's own is 200.
func abort(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	switch {
	case err == nil:
		conn.Close()
	case !errors.Is(err, http.ErrHijacked): // a ResponseWriter of the host's that cannot
		writeProblem(w, wire.NewProblem(wire.Internal, "", ""))
	}
}

// refuseEarly closes a requester that was.
func (s *Server) refuseEarly(leg *pump.Leg, b *bridge, err error) {
	s.letGo(b)
	s.logRefused(b, err)
	p := problem(b, err)
	code := p.Code.Row().Close
	var broke ws.ProtocolError
	switch {
	case errors.As(err, &broke):
		code = wire.CloseProtocol
		p.Code, p.Detail = wire.ProtocolErr, broke.Error()
	case code == 0:
		code = wire.CloseGoingAway
	}
	leg.Close(code, closeReason(p))
}
