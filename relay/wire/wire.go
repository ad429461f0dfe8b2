// Package wire is what a relay and the two sides it joins agree on: paths,
// query parameters, headers, subprotocols, codes and their numbers.
//
// Nothing here does anything. A change here is a change of the protocol: bump
// Version, add golden bytes, and keep the previous agent working, because
// devices are upgraded last.
package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Version is the version of the signal and of the HTTP interface.
const Version = 1

// Paths of the public listener. All but the last two are those of websocketbridge.
const (
	PathConnect       = "/bridge/connect"       // requester: GET, WebSocket
	PathAccept        = "/bridge/accept"        // device: GET, WebSocket
	PathGetSignedURL  = "/bridge/getSignedUrl"  // requester: GET, answers a URL of PathConnectSigned
	PathConnectSigned = "/bridge/connectSigned" // requester: as PathConnect; the URL is the credential
	PathReject        = "/bridge/reject"        // device: POST {"code","message"}
	PathCanI          = "/bridge/canI"          // requester: GET as PathConnect, answers a Permission
)

// Paths of the admin listener.
const (
	PathHealthz = "/healthz" // the process serves
	PathReadyz  = "/readyz"  // the node takes new bridges
	PathBridges = "/bridges" // GET: all there are, ?local those of this node; DELETE /bridges/{id}: end one
	PathMetrics = "/metrics" // for Prometheus
	PathPProf   = "/debug/pprof/"
)

// PingDraining is the payload of a ping by which a node that drains asks its
// requesters to move: to open another bridge, which another node will take, and to
// leave this one when its streams have ended. It is a ping like any other for whoever
// does not know that (RFC 6455 section 5.5.2): nothing ends before the drain's deadline.
const PingDraining = "draining"

// Query parameters.
const (
	ParamDeviceID      = "deviceId"      // connect: which device; required
	ParamRequestData   = "requestData"   // connect: opaque, handed to the device as it is
	ParamTarget        = "target"        // connect: target names, separated by commas; the device serves no others on this bridge
	ParamUpgrade       = "upgrade"       // connect: UpgradeEarly, or absent
	ParamExpirationUTC = "expirationUtc" // getSignedUrl, connectSigned: until when the URL works, RFC 3339; required
	ParamPrincipal     = "principal"     // connectSigned: who asked for the URL
	ParamOnce          = "once"          // getSignedUrl: "true": the URL works once; connectSigned: a sealed ticket for that
	ParamSignature     = "signature"     // connectSigned: proves all parameters of connect and the two above; a secret
	ParamBridgeToken   = "bridgeToken"   // accept, reject: the sealed token; a secret
)

// UpgradeEarly asks for the 101 before the device has dialled back. A browser
// cannot read the status of a failed handshake, but it can read a close code.
const UpgradeEarly = "early"

// Headers.
const (
	HeaderAPIKey   = "X-Api-Key" // #nosec G101 -- a name; as in websocketbridge; Authorization: Bearer works as well
	HeaderBridgeID = "Bridge-Id" // in every answer that belongs to a bridge
	// HeaderTraceParent says of which trace a request is part (W3C Trace Context). A
	// requester may send it; a device sends what its signal had.
	HeaderTraceParent = "Traceparent"
)

// SessionV1 is the subprotocol of the first session version: many streams on
// one bridge. A requester offers every version it speaks, best first; the
// device picks one; the relay only carries the words.
const SessionV1 = "bridge.session.v1"

// Limits that both ends can rely on.
const (
	MaxDeviceID     = 128      // bytes; IoT Hub identity registry
	MaxTarget       = 128      // bytes of one target name
	MaxTargets      = 16       // target names in one request
	MaxRequestData  = 2 << 10  // bytes, before JSON escaping
	MaxSubprotocols = 8        // offered by one requester
	MaxReject       = 4 << 10  // bytes of a reject body
	MaxProblem      = 16 << 10 // bytes of a problem body worth reading
	MaxReason       = 123      // bytes of a close reason (RFC 6455 section 5.5: 125 less the code)
)

var (
	errEmpty = errors.New("is empty")
	errUTF8  = errors.New("is not valid UTF-8")
)

// CheckDeviceID says why id cannot name a device, or nil. The alphabet is
// IoT Hub's: ASCII letters, digits and - . + % _ # * ? ! ( ) , : = @ $ '
func CheckDeviceID(id string) error {
	if id == "" {
		return errEmpty
	}
	if len(id) > MaxDeviceID {
		return fmt.Errorf("has %d bytes; IoT Hub allows %d", len(id), MaxDeviceID)
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-.+%_#*?!(),:=@$'", c) >= 0:
		default:
			return fmt.Errorf("has %q, which IoT Hub does not allow in a device ID", c)
		}
	}
	return nil
}

// CheckTarget says why name cannot be a target name, or nil. A target is a
// name the device's owner chose, or host:port where the owner allowed that.
func CheckTarget(name string) error {
	switch {
	case name == "":
		return errEmpty
	case len(name) > MaxTarget:
		return fmt.Errorf("has %d bytes; %d are allowed", len(name), MaxTarget)
	case !utf8.ValidString(name):
		return errUTF8
	}
	for _, r := range name {
		if r == ' ' || r == ',' || !unicode.IsPrint(r) { // it will be on terminals and in logs
			return errors.New("has a space, a comma or a control character")
		}
	}
	return nil
}

// CheckSubprotocol says why s cannot be offered as a subprotocol, or nil: it is
// a token (RFC 6455 section 4.1, RFC 9110 section 5.6.2).
func CheckSubprotocol(s string) error {
	if s == "" {
		return errEmpty
	}
	if len(s) > MaxTarget {
		return fmt.Errorf("has %d bytes; %d are allowed", len(s), MaxTarget)
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return fmt.Errorf("has %q, which is not allowed in a subprotocol", c)
		}
	}
	return nil
}

// SplitTargets reads the target parameter: none, or names separated by commas.
// A raw bridge can use only one; a session opens its streams to these and to no
// others, because the relay, which cannot see into it, has authorized these. None
// means the device's target "default".
func SplitTargets(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	names := strings.Split(s, ",")
	if len(names) > MaxTargets {
		return nil, fmt.Errorf("names %d targets; %d are allowed", len(names), MaxTargets)
	}
	for _, name := range names {
		if err := CheckTarget(name); err != nil {
			return nil, fmt.Errorf("%.40q %w", name, err)
		}
	}
	return names, nil
}

// DefaultTarget is what a request without a target means, if the device has one
// of that name.
const DefaultTarget = "default"

// JoinTargets is the inverse of SplitTargets.
func JoinTargets(names []string) string { return strings.Join(names, ",") }

// CheckRequestData says why data cannot be carried, or nil.
func CheckRequestData(data string) error {
	if len(data) > MaxRequestData {
		return fmt.Errorf("has %d bytes; %d are allowed", len(data), MaxRequestData)
	}
	if !utf8.ValidString(data) {
		return errUTF8
	}
	return nil
}
