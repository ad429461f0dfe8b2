package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
)

// A failure is an error as a person or a script gets it. Its JSON form is the
// last event of a command that failed.
type failure struct {
	Event      string `json:"event"` // "error"
	Code       string `json:"code,omitempty"`
	Detail     string `json:"detail"`
	Hint       string `json:"hint,omitempty"`
	BridgeID   string `json:"bridgeId,omitempty"`
	DeviceCode string `json:"deviceCode,omitempty"`
	RetryAfter int    `json:"retryAfter,omitempty"` // seconds
	Exit       int    `json:"exit"`
	quiet      bool   // the exit code says it all
}

// Codes of this command's own, beside those of package wire.
const (
	codeUsage       = "usage"
	codeUnreachable = "unreachable" // no answer from the relay's address
	codeNoRelay     = "no_relay"    // an answer, but not a relay's
	codeTLS         = "tls"
	codeNoSession   = "no_session"
	codeLost        = "lost"
	codeSignIn      = "sign_in" // only bridge login helps
	codeIssuer      = "issuer"  // the identity provider gives no good answer
)

// usageError is the caller's mistake.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// hintError says what to try.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// dialError is what kept a bridge from being made.
type dialError struct {
	error
	keyless  bool // no API key was sent
	signedIn bool // but a token of bridge login
}

func dialFailed(err error, cfg client.Config) error {
	return dialError{err, cfg.APIKey == "", cfg.Credentials != nil}
}

func (e dialError) Unwrap() error { return e.error }

// lostError is what ended a bridge that was open.
type lostError struct {
	error
	bridgeID string
}

func (e lostError) Unwrap() error { return e.error }

// errInterrupted ends a command that the user ended.
var errInterrupted = errors.New("interrupted")

// explain finds out what kind of failure err is.
func explain(err error) failure {
	if err == nil {
		return failure{}
	}
	f := failure{Event: "error", Exit: exitOther, Detail: err.Error()}
	var (
		hint  hintError
		dial  dialError
		lost  lostError
		relay *client.Error
		open  *session.OpenError
	)
	if errors.As(err, &hint) {
		f.Hint = hint.hint
	}
	if errors.As(err, &lost) {
		f.BridgeID = lost.bridgeID
	}
	errors.As(err, &dial)
	unreachable := errors.As(err, new(*client.UnreachableError))
	switch {
	case errors.Is(err, errInterrupted):
		return failure{Exit: exitInterrupted, quiet: true}
	case errors.Is(err, errNo):
		return failure{Exit: exitAuth, quiet: true}
	case errors.As(err, new(usageError)):
		f.Exit, f.Code = exitUsage, codeUsage
	case errors.As(err, &relay):
		f.fromRelay(relay, dial)
	case errors.Is(err, client.ErrSignIn):
		f.Exit, f.Code, f.Hint = exitAuth, codeSignIn, cmp.Or(f.Hint, "bridge login")
	case errors.As(err, new(*client.CredentialsError)), errors.As(err, new(issuerError)):
		f.Exit, f.Code = exitAuth, codeIssuer
		f.Detail = oneLine(f.Detail)
		f.Hint = cmp.Or(f.Hint, "is the identity provider's address right, and is there a way to it from here?")
	case errors.Is(err, client.ErrNoSession):
		f.Exit, f.Code = exitRefused, codeNoSession
		f.Hint = "is its agent up to date, or of another make? bridge raw works without a session"
	case errors.As(err, &open):
		f.Exit, f.Code, f.DeviceCode = exitRefused, string(wire.DeviceRefused), open.Code
		f.Detail = oneLine(fmt.Sprintf("the device refused target %q: %s: %s", open.Target, open.Code, open.Message))
		f.Hint = deviceHints[open.Code]
	case unreachable && f.fromTLS(err):
	case unreachable:
		f.Exit, f.Code = exitUnreachable, codeUnreachable
		f.Detail = "cannot reach the relay: " + shortened(err)
		f.Hint = "is the relay's address right, and is there a way to it from here? behind a proxy, set HTTPS_PROXY"
		if strings.Contains(f.Detail, "through proxy") {
			f.Hint = "the proxy comes from HTTPS_PROXY or HTTP_PROXY; NO_PROXY names hosts to reach without it"
		}
	case lost.error != nil:
		f.Exit, f.Code = exitLost, codeLost
		f.Detail = "the bridge was lost: " + oneLine(err.Error())
		f.Hint = "connect again"
	}
	return f
}

// fromRelay takes over what the relay or the device said. Its hints are for any
// client; where this command knows more, its own are better.
func (f *failure) fromRelay(e *client.Error, dial dialError) {
	f.Code, f.Detail, f.Hint, f.DeviceCode = string(e.Code), oneLine(e.Detail), oneLine(e.Hint), e.DeviceCode
	if e.BridgeID != "" {
		f.BridgeID = e.BridgeID
	}
	f.RetryAfter = int(e.RetryAfter / time.Second)
	if exit, ok := codeExits[e.Code]; ok {
		f.Exit = exit
	}
	switch {
	case e.Close != 0: // the bridge was open, and may have carried something
		f.Exit = exitLost
		f.Detail = "the bridge was lost: " + f.Detail
	case e.NoRelay:
		f.notRelay(e.Status)
	case e.Code == wire.Unauthenticated && dial.signedIn:
		f.Detail = "the relay does not accept this sign-in"
		f.Hint = "was it made at the identity provider that the relay trusts, with the relay's scope? bridge login --status shows it, bridge login makes another"
	case e.Code == wire.Unauthenticated && dial.keyless:
		f.Detail = "the relay wants to know who you are, and neither an API key nor a sign-in was sent"
		f.Hint = "name a file that holds a key with BRIDGE_API_KEY_FILE or --api-key-file, or bridge login where the relay takes that"
	case e.Code == wire.Unauthenticated:
		f.Detail = "the relay does not accept this API key"
		f.Hint = "is it the right one for this relay, and has it not expired? bridge takes it from BRIDGE_API_KEY, BRIDGE_API_KEY_FILE or --api-key-file"
	case e.Code == wire.UpgradeRequired:
		f.Detail = "the relay got a request that was no WebSocket handshake any more"
		f.Hint = "a proxy in front of the relay must pass the headers Upgrade and Connection on"
	case e.Code == wire.DeviceRefused && deviceHints[e.DeviceCode] != "":
		f.Hint = deviceHints[e.DeviceCode]
	case f.RetryAfter > 1:
		f.Hint = fmt.Sprintf("try again in %d seconds", f.RetryAfter)
	}
}

// notRelay is an answer without a problem body. A gateway's 502 or 503 is the
// relay that it does not reach; anything else comes from something that is none.
func (f *failure) notRelay(status int) {
	switch {
	case status >= 500:
		f.Exit = exitRelay
		f.Hint = "a proxy in front of the relay seems to answer because it does not reach it"
	case f.Exit == exitUsage || f.Exit == exitOther:
		f.Exit, f.Code = exitUnreachable, codeNoRelay
		f.Hint = "is there a relay at this address? a path in front of /bridge belongs to it, and wss:// where it speaks TLS"
	}
}

// fromTLS says whether err is one of TLS.
func (f *failure) fromTLS(err error) bool {
	var (
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &host):
		f.Hint = "address the relay by a name that is in its certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.Hint = "is this machine's clock right? if it is, tell who runs the relay"
	case errors.As(err, &cert):
		f.Hint = "if the relay has a certificate of your own CA, name that CA's file with --ca-file or BRIDGE_CA_FILE"
	case errors.As(err, &record):
		f.Hint = "that port speaks no TLS; is it the right one? a relay without TLS on this machine is addressed as ws://"
	case errors.As(err, &alert):
	default:
		return false
	}
	f.Exit, f.Code = exitUnreachable, codeTLS
	f.Detail = "cannot reach the relay: " + shortened(err)
	return true
}

// shortened leaves out what net says twice: "dial a:1: dial tcp a:1: connect:
// connection refused".
func shortened(err error) string {
	text := err.Error()
	var op *net.OpError
	if !errors.As(err, &op) {
		return oneLine(text)
	}
	short := cause(op).Error()
	var dns *net.DNSError
	if errors.As(err, &dns) {
		short = dns.Err // whose name it is stands before it
	}
	return oneLine(strings.Replace(text, op.Error(), short, 1))
}

// cause is the last part of an error: "address already in use".
func cause(err error) error {
	for {
		u := errors.Unwrap(err)
		if u == nil {
			return err
		}
		err = u
	}
}

// oneLine keeps words from elsewhere from passing for lines of ours.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// deviceHints say what to try after a device refused a bridge or a stream, by
// the codes of package deviceagent.
var deviceHints = map[string]string{
	"target_not_allowed": "the device's owner lists what may be reached, by name or as HOST:PORT; ask for this target",
	"target_required":    "name a target that the device's owner has listed",
	"dial_failed":        "is the service on the device running, and is this its port?",
	"limit_reached":      "close bridges or streams that are not needed",
	"expired":            "the device's clock or the relay's is wrong",
	"relay_not_allowed":  "the device's owner lists the relays it may dial (AGENT_RELAY_HOSTS)",

	"not_signed":            "this device follows signed signals only; who runs the relay sets RELAY_SIGNAL_KEY",
	"wrong_signature":       "the device's owner lists the relay's public key (AGENT_SIGNAL_KEYS); tell who runs the relay",
	"principal_not_allowed": "the device's owner lists who may come (AGENT_PRINCIPALS, AGENT_TARGET_PRINCIPALS)",
	"disabled":              "only the device's owner can switch it on again",
}
