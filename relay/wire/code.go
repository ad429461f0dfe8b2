package wire

import (
	"net/http"
	"slices"
)

// A Code names one outcome, in problem bodies, close reasons, logs and metrics.
type Code string

// Why a bridge was not made.
const (
	BadRequest       Code = "bad_request"
	Unauthenticated  Code = "unauthenticated"
	AuthUnavailable  Code = "auth_unavailable" // the credentials may be good; the relay cannot find out now
	Forbidden        Code = "forbidden"
	BadSignature     Code = "bad_signature" // of a signed URL, or it has expired
	DeviceNotFound   Code = "device_not_found"
	DeviceOffline    Code = "device_offline"
	DeviceRefused    Code = "device_refused"
	MethodNotAllowed Code = "method_not_allowed"
	UpgradeRequired  Code = "upgrade_required"
	LimitReached     Code = "limit_reached"
	HubThrottled     Code = "hub_throttled"
	HubFailed        Code = "hub_failed"
	Draining         Code = "draining"
	AuditFailed      Code = "audit_failed"
	DialBackTimeout  Code = "dial_back_timeout"
	Internal         Code = "internal"
)

// What only the device side is told.
const (
	BadToken   Code = "bad_token"   // not a bridge token at all
	TokenProof Code = "token_proof" // forged, sealed with a key we do not have, or by a node that is no peer
	BridgeGone Code = "bridge_gone" // used, expired, or its requester left
	OwnerLost  Code = "owner_lost"  // the node that owns the bridge cannot be reached
)

// Why an open bridge ended.
const (
	Done        Code = "done"         // one side closed it
	PeerLost    Code = "peer_lost"    // one side vanished without a close frame
	PeerDead    Code = "peer_dead"    // one side sent no frame for the dead-peer time
	ProtocolErr Code = "protocol"     // one side broke RFC 6455
	IdleTimeout Code = "idle_timeout" // no data for the idle time
	MaxDuration Code = "max_duration" // the longest life of a bridge
	MaxBytes    Code = "max_bytes"    // the most bytes of a bridge
	Overload    Code = "overload"     // the node has no room
	Killed      Code = "killed"       // an operator ended it
	// PermissionRevoked: policy or credentials do not allow it any more.
	PermissionRevoked Code = "permission_revoked"
	RequesterOut      Code = "requester_out" // the requester left before the join
)

// WebSocket close codes (RFC 6455 section 7.4.1) as this product uses them.
const (
	CloseNormal      = 1000
	CloseGoingAway   = 1001 // the other end left
	CloseProtocol    = 1002
	CloseUnsupported = 1003
	CloseNoStatus    = 1005 // never on the wire
	CloseAbnormal    = 1006 // never on the wire
	ClosePolicy      = 1008 // a cap: idle, duration, bytes
	CloseTooBig      = 1009
	CloseInternal    = 1011
	CloseRestart     = 1012 // draining or owner lost: dial again
	CloseOverload    = 1013 // dial again later
)

// An Outcome is one row of the table that relates a code to its numbers.
type Outcome struct {
	Code   Code
	Status int    // HTTP status before the upgrade; 0: cannot happen there
	Close  int    // close code after the upgrade; 0: cannot happen there
	Title  string // one sentence for a person, without names
	Hint   string // what to try next; may be empty
	Retry  bool   // the same request may work later without anyone changing anything
}

// outcomes is the only place where codes get numbers.
var outcomes = []Outcome{
	{BadRequest, http.StatusBadRequest, 4400, "The request is malformed.", "", false},
	{Unauthenticated, http.StatusUnauthorized, 4401, "The credentials are missing or wrong.", "send an API key as X-Api-Key or Authorization: Bearer, or a token there if the relay takes tokens", false},
	{AuthUnavailable, http.StatusServiceUnavailable, 4503, "The relay cannot check the credentials now.", "try again later, with the same credentials; the relay does not reach the issuer of tokens", true},
	{Forbidden, http.StatusForbidden, 4403, "The credentials do not allow this.", "ask who runs the relay for access to this device and target", false},
	{BadSignature, http.StatusBadRequest, 4400, "The signed URL has expired, was changed, or its key is gone.", "ask for another at /bridge/getSignedUrl", false},
	{DeviceNotFound, http.StatusNotFound, 4404, "The hub does not know the device.", "check the device ID; it is case-sensitive", false},
	{DeviceOffline, http.StatusNotFound, 4404, "The device is not connected to the hub.", "is the device powered, on its network, and its agent running?", true},
	{DeviceRefused, http.StatusConflict, 4409, "The device refused.", "the device's own words say why; its owner decides what it allows", false},
	{MethodNotAllowed, http.StatusMethodNotAllowed, 0, "The path takes another method.", "", false},
	{UpgradeRequired, http.StatusUpgradeRequired, 0, "The path takes WebSocket handshakes only.", "use a WebSocket client; a proxy in between must pass Upgrade and Connection on", false},
	{LimitReached, http.StatusTooManyRequests, 4429, "A limit of the relay is reached.", "close bridges that are not needed, or try again later", true},
	{HubThrottled, http.StatusTooManyRequests, 4429, "The hub throttles the relay.", "try again later", true},
	{HubFailed, http.StatusBadGateway, 4502, "The relay cannot use the hub.", "tell who runs the relay; its log has the cause", true},
	{Draining, http.StatusServiceUnavailable, 4503, "The node is draining.", "try again; another node will take it", true},
	{AuditFailed, http.StatusServiceUnavailable, 4503, "The relay cannot write its audit log, and makes no bridge without.", "tell who runs the relay: its disk may be full", true},
	{DialBackTimeout, http.StatusGatewayTimeout, 4504, "The device was told but did not dial back in time.", "is the device online and its agent running? can it reach the relay, and does it allow this relay's host?", true},
	{Internal, http.StatusInternalServerError, CloseInternal, "The relay failed.", "tell who runs the relay; its log has the cause", true},

	{BadToken, http.StatusBadRequest, 0, "The bridge token is malformed.", "dial the accept URL exactly as the signal has it", false},
	{TokenProof, http.StatusForbidden, 0, "The bridge token is not one of ours.", "", false},
	{BridgeGone, http.StatusGone, 0, "The bridge is gone: used, expired, or its requester left.", "wait for the next signal", false},
	{OwnerLost, http.StatusBadGateway, CloseRestart, "The node that owns the bridge is lost.", "connect again", true},

	{Done, 0, CloseNormal, "The bridge was closed.", "", false},
	{PeerLost, 0, CloseGoingAway, "The other side vanished.", "connect again", true},
	{PeerDead, 0, CloseGoingAway, "The other side went silent.", "connect again", true},
	{ProtocolErr, 0, CloseProtocol, "The WebSocket protocol was broken.", "", false},
	{IdleTimeout, 0, ClosePolicy, "The bridge was idle for too long.", "connect again when there is something to send", false},
	{MaxDuration, 0, ClosePolicy, "The bridge reached its longest life.", "connect again", true},
	{MaxBytes, 0, ClosePolicy, "The bridge reached its most bytes.", "", false},
	{Killed, http.StatusForbidden, ClosePolicy, "An operator of the relay ended the bridge.", "ask who runs the relay", false},
	{PermissionRevoked, http.StatusForbidden, ClosePolicy, "The permission for the bridge has ended.", "ask who runs the relay for access to this device and target", false},
	{Overload, 0, CloseOverload, "The node has no room.", "try again later", true},
	{RequesterOut, 0, 0, "The requester left before the device came.", "", false},
}

// Outcomes returns the whole table, in the order of the documentation.
func Outcomes() []Outcome { return slices.Clone(outcomes) }

// Lookup returns the row of c. A code this build does not know, from a newer
// relay say, has no row.
func Lookup(c Code) (Outcome, bool) {
	for _, o := range outcomes {
		if o.Code == c {
			return o, true
		}
	}
	return Outcome{}, false
}

// Row returns the row of a code of this package.
func (c Code) Row() Outcome {
	if o, ok := Lookup(c); ok {
		return o
	}
	o, _ := Lookup(Internal)
	return o
}
