package relay

import (
	"context"
	"time"

	"websocketbridge/relay/audit"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/wire"
)

// An Auditor keeps who did what. It is called from many goroutines.
type Auditor interface {
	// Record keeps one event. An error, which wraps audit.ErrNotKept, means that what r
	// tells of must not happen: a bridge, a signed URL. For other events it is ignored.
	Record(ctx context.Context, r audit.Record) error
	// Err says why such an event would have an error now.
	Err() error
}

// record keeps what has happened or will in any case.
func (s *Server) record(r audit.Record) {
	if s.cfg.Audit != nil {
		s.cfg.Audit.Record(s.ctx, r)
	}
}

// mayRecord is for what must not happen without r.
func (s *Server) mayRecord(ctx context.Context, r audit.Record) error {
	if s.cfg.Audit == nil {
		return nil
	}
	return s.cfg.Audit.Record(ctx, r)
}

// auditable says whether it is worth to begin what needs a record.
func (s *Server) auditable() error {
	if s.cfg.Audit == nil {
		return nil
	}
	return s.cfg.Audit.Err()
}

// await signals the device, waits for it, and has a line that the bridge opens.
func (s *Server) await(ctx context.Context, b *bridge) (arrival, error) {
	got, err := s.awaitDevice(ctx, b)
	if err != nil {
		return got, err
	}
	r := b.record(audit.Opened)
	r.Via = got.via
	if err := s.mayRecord(ctx, r); err != nil {
		got.leg.Close(wire.CloseInternal, wire.Reason{Code: wire.AuditFailed, Text: "the relay makes no bridge now"}.String())
		return got, err
	}
	b.recorded = true
	return got, nil
}

// record is what is known of b.
func (b *bridge) record(e audit.Event) audit.Record {
	r := b.aim.record(e, b.principal, b.from)
	r.BridgeID, r.Rule, r.Start = b.id.String(), b.permit.Rule(), audit.Time{Time: b.created}
	if b.granted {
		r.Decision = audit.Allow
	}
	return r
}

func (a aim) record(e audit.Event, p *auth.Principal, from string) audit.Record {
	r := audit.Record{Event: e, DeviceID: a.deviceID, From: from}
	r.Targets, _ = wire.SplitTargets(a.target) // parseAim has checked it
	if p != nil {
		r.Principal, r.Method = p.Name, p.Method
	}
	return r
}

// recordRefused is for a bridge that did not open, though it may have a line that it
// would: then this is the line of its end.
func (s *Server) recordRefused(b *bridge, p wire.Problem) {
	r := b.record(audit.Refused)
	r.Path, r.Code = wire.PathConnect, string(p.Code)
	if b.signed {
		r.Path = wire.PathConnectSigned
	}
	s.isRefused(b, r.Path, p.Code)
	if b.recorded {
		r.Event, r.Path, r.Bytes, r.End = audit.Closed, "", &audit.Bytes{}, audit.Time{Time: time.Now()}
	}
	s.record(denied(r))
}

// denied adds that it was the rules that refused, where it was.
func denied(r audit.Record) audit.Record {
	switch wire.Code(r.Code) {
	case wire.Unauthenticated, wire.Forbidden, wire.BadSignature, wire.TokenProof:
		r.Decision = audit.Deny
	}
	return r
}

// recordRefusedRequest is for who was not let in and has no bridge here: a device, or
// somebody whom another node would have had to let in.
func (s *Server) recordRefusedRequest(path, bridgeID, deviceID, from string, p wire.Problem) {
	s.metrics.Refused(path, p.Code)
	s.record(denied(audit.Record{Event: audit.Refused, BridgeID: bridgeID, DeviceID: deviceID, From: from, Path: path, Code: string(p.Code)}))
}

func (s *Server) recordClosed(b *bridge, via string, res pump.Result) {
	r := b.record(audit.Closed)
	r.Via, r.Code, r.By, r.End = via, string(res.Reason), string(res.By), audit.Time{Time: time.Now()}
	r.Bytes = &audit.Bytes{ToDevice: res.ToDevice, ToRequester: res.ToRequester}
	s.record(r)
}

// recordKilled is by an operator at the address from, who asked the node via if it is
// not this one.
func (s *Server) recordKilled(b *bridge, from, via string) {
	r := b.record(audit.Killed)
	r.From, r.Via, r.Code, r.Decision, r.Rule, r.Start = from, via, string(wire.Killed), "", "", audit.Time{}
	s.record(r)
}

// recordSigned has a line of a URL that is to be handed out.
func (s *Server) recordSigned(ctx context.Context, u signedURL, from string) error {
	r := u.aim.record(audit.SignedURLMade, u.asks, from)
	r.Decision, r.Rule, r.Expires = audit.Allow, u.permit.Rule(), audit.Time{Time: u.expires}
	return s.mayRecord(ctx, r)
}

func (s *Server) recordUnsigned(u signedURL, from string, p wire.Problem) {
	r := u.aim.record(audit.Refused, u.asks, from)
	r.Path, r.Code = wire.PathGetSignedURL, string(p.Code)
	s.metrics.Refused(r.Path, p.Code)
	s.record(denied(r))
}
