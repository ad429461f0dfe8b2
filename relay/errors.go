package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"websocketbridge/relay/audit"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
)

// Facts of this package.
var (
	errBadRequest  = errors.New("bad request")
	errOrigin      = errors.New("the request comes from a web page of another site")
	errMethod      = errors.New("method not allowed")
	errLimit       = errors.New("limit reached")
	errDraining    = errors.New("the node is draining")
	errDialBack    = errors.New("no dial-back")
	errLeft        = errors.New("the requester left")
	errSubprotocol = errors.New("the device speaks none of the requested subprotocols")
	errGone        = errors.New("the bridge is gone")
	errForeign     = errors.New("the token names a node that is not known here")
	errOwnerLost   = errors.New("the owner of the bridge is lost")
	errKilled      = errors.New("killed")
	errRevoked     = errors.New("permission revoked")

	errSignature     = errors.New("bad signature")
	errSignedExpired = errors.New("the signed URL has expired")
	errSignedOff     = errors.New("this relay has no signed URLs")
)

// codes is the one table from a fact to its code; package wire has the code's
// numbers. The first row that matches counts. Say tells the requester what
// happened in a sentence of its own; where it is nil, the title has to do,
// because the error's text is for the log.
var codes = []struct {
	is   error
	code wire.Code
	say  func(b *bridge, err error) string
}{
	{errBadRequest, wire.BadRequest, tail(errBadRequest)},
	{signaler.ErrTooBig, wire.BadRequest, func(*bridge, error) string {
		return fmt.Sprintf("deviceId, target, requestData and subprotocols together do not fit a signal of %d bytes", signaler.MaxSize)
	}},
	{errMethod, wire.MethodNotAllowed, nil},
	{ws.ErrNoUpgrade, wire.UpgradeRequired, nil},
	{auth.ErrForbidden, wire.Forbidden, tail(auth.ErrForbidden)},
	{errOrigin, wire.Forbidden, own},
	{auth.ErrNoCredentials, wire.Unauthenticated, nil},
	{auth.ErrBadCredentials, wire.Unauthenticated, nil},
	{auth.ErrUnchecked, wire.AuthUnavailable, nil},
	{errSignedOff, wire.Forbidden, own},
	{errSignedExpired, wire.BadSignature, own},
	{errOnceUsed, wire.BadSignature, own},
	{errOnceLost, wire.BadSignature, own},
	{errSignature, wire.BadSignature, nil},
	{audit.ErrNotKept, wire.AuditFailed, nil},
	{errLimit, wire.LimitReached, tail(errLimit)},
	{errDraining, wire.Draining, nil},

	{signaler.ErrDeviceNotFound, wire.DeviceNotFound, device("the hub does not know device %q")},
	{signaler.ErrDeviceOffline, wire.DeviceOffline, device("device %q is not connected to the hub")},
	{signaler.ErrRefused, wire.DeviceRefused, refusal},
	{errSubprotocol, wire.DeviceRefused, own},
	{signaler.ErrThrottled, wire.HubThrottled, nil},
	{signaler.ErrNotSupported, wire.HubFailed, func(*bridge, error) string {
		return "the hub's tier has neither cloud-to-device messages nor direct methods (IoT Hub Basic)"
	}},
	{signaler.ErrUnauthorized, wire.HubFailed, func(*bridge, error) string {
		return "the hub refused the relay's own credentials"
	}},
	{signaler.ErrUnavailable, wire.HubFailed, func(*bridge, error) string { return "the hub cannot be reached" }},
	{errDialBack, wire.DialBackTimeout, tail(errDialBack)},
	{signaler.ErrTimedOut, wire.DialBackTimeout, device("the hub got no answer from device %q in time")},
	{errLeft, wire.RequesterOut, nil},

	{token.ErrMalformed, wire.BadToken, nil},
	{token.ErrProof, wire.TokenProof, nil},
	{errForeign, wire.TokenProof, own},
	{token.ErrExpired, wire.BridgeGone, nil},
	{errGone, wire.BridgeGone, nil},
	{errOwnerLost, wire.OwnerLost, nil},
	{errKilled, wire.Killed, nil},
	{errRevoked, wire.PermissionRevoked, tail(errRevoked)},
}

func own(_ *bridge, err error) string { return err.Error() }

// tail is the error without the fact in front, which the code says already.
func tail(fact error) func(*bridge, error) string {
	return func(_ *bridge, err error) string { return strings.TrimPrefix(err.Error(), fact.Error()+": ") }
}

func device(format string) func(*bridge, error) string {
	return func(b *bridge, _ error) string { return fmt.Sprintf(format, b.deviceID) }
}

func refusal(b *bridge, err error) string {
	var r *signaler.RefusedError
	if !errors.As(err, &r) {
		return fmt.Sprintf("device %q refused", b.deviceID)
	}
	return fmt.Sprintf("device %q refused: %s: %s", b.deviceID, clean(r.Code, 64), clean(r.Message, 400))
}

// problem turns an error into what the caller is told. b may be nil where none
// was made.
func problem(b *bridge, err error) wire.Problem {
	p := wire.NewProblem(wire.Internal, "", "")
	for _, row := range codes {
		if !errors.Is(err, row.is) {
			continue
		}
		p = wire.NewProblem(row.code, "", "")
		if row.say != nil {
			p.Detail = row.say(b, err)
		}
		break
	}
	if b != nil {
		p.BridgeID = b.id.String()
	}
	if r := (*signaler.RefusedError)(nil); errors.As(err, &r) {
		p.DeviceCode = clean(r.Code, 64)
	}
	var after time.Duration
	if t := (*signaler.ThrottledError)(nil); errors.As(err, &t) {
		after = t.RetryAfter
	}
	if l := (*limitError)(nil); errors.As(err, &l) {
		after = l.after
	}
	if after > 0 {
		p.RetryAfter = int((after + time.Second - 1) / time.Second)
	} else if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		p.RetryAfter = 1
	}
	return p
}

// maxBody is what a WebSocket client keeps of the answer to a failed handshake.
const maxBody = 1024

// writeProblem answers a request that was not upgraded.
func writeProblem(w http.ResponseWriter, p wire.Problem) {
	body, _ := json.Marshal(p)
	for len(body) > maxBody && p.Detail != "" { // escaping may have made it long
		p.Detail = clean(p.Detail, len(p.Detail)*3/4)
		body, _ = json.Marshal(p)
	}
	h := w.Header()
	h.Set("Content-Type", wire.ProblemType)
	h.Set("Cache-Control", "no-store")
	if p.BridgeID != "" {
		h.Set(wire.HeaderBridgeID, p.BridgeID)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", auth.Challenge)
	case http.StatusUpgradeRequired:
		h.Set("Upgrade", "websocket") // RFC 9110 section 15.5.22
		h.Set("Connection", "Upgrade")
	}
	w.WriteHeader(p.Status)
	w.Write(body)
}

// closeReason is the problem as the text of a close frame.
func closeReason(p wire.Problem) string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	return wire.Reason{Code: p.Code, Text: text}.String()
}

// clean makes words from elsewhere fit for a terminal and a log: one line, nothing
// that does not print, at most n bytes.
func clean(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	if len(s) > n {
		for n > 0 && s[n]&0xC0 == 0x80 {
			n--
		}
		s = s[:n]
	}
	return s
}
