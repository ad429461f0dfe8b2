package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
)

// Exit codes, one per class of failure, so that a script can tell them apart.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitAuth        = 4
	exitNotFound    = 5
	exitOffline     = 6
	exitRefused     = 7
	exitLimit       = 8
	exitDialBack    = 9
	exitRelay       = 10
	exitLost        = 11
	exitInterrupted = 130 // 128 + SIGINT, as shells count
)

const exitHelp = `Exit codes:
  0    done                          7    the device refused
  1    anything else                 8    a limit, or the hub throttles
  2    wrong usage or settings       9    the device did not dial back
  3    the relay cannot be reached   10   the relay or its hub failed
  4    credentials missing or wrong  11   the bridge was lost
  5    the hub has no such device    130  interrupted
  6    the device is offline`

// codeExits maps what the relay says. Codes that are missing are exitOther.
var codeExits = map[wire.Code]int{
	wire.BadRequest:       exitUsage,
	wire.Unauthenticated:  exitAuth,
	wire.Forbidden:        exitAuth,
	wire.DeviceNotFound:   exitNotFound,
	wire.DeviceOffline:    exitOffline,
	wire.DeviceRefused:    exitRefused,
	wire.LimitReached:     exitLimit,
	wire.HubThrottled:     exitLimit,
	wire.Overload:         exitLimit,
	wire.DialBackTimeout:  exitDialBack,
	wire.HubFailed:        exitRelay,
	wire.Draining:         exitRelay,
	wire.Internal:         exitRelay,
	wire.UpgradeRequired:  exitRelay,
	wire.MethodNotAllowed: exitRelay,
	wire.OwnerLost:        exitRelay,
	wire.PeerLost:         exitLost,
	wire.PeerDead:         exitLost,
	wire.IdleTimeout:      exitLost,
	wire.MaxDuration:      exitLost,
	wire.MaxBytes:         exitLost,
	wire.ProtocolErr:      exitLost,
}

// A failure is an error as a person or a script gets it.
type failure struct {
	exit       int
	code       string
	text       string
	hint       string
	bridgeID   string
	deviceCode string
	quiet      bool // the exit code says it all
}

func (f failure) json() any {
	return struct {
		Event      string `json:"event"`
		Code       string `json:"code,omitempty"`
		Detail     string `json:"detail"`
		Hint       string `json:"hint,omitempty"`
		BridgeID   string `json:"bridgeId,omitempty"`
		DeviceCode string `json:"deviceCode,omitempty"`
		Exit       int    `json:"exit"`
	}{"error", f.code, f.text, f.hint, f.bridgeID, f.deviceCode, f.exit}
}

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

// errInterrupted ends a command that the user ended.
var errInterrupted = errors.New("interrupted")

// explain finds out what kind of failure err is.
func explain(err error) failure {
	if err == nil {
		return failure{}
	}
	f := failure{exit: exitOther, text: err.Error()}
	var (
		hint   hintError
		usage  usageError
		relay  *client.Error
		open   *session.OpenError
		netErr *net.OpError
		cert   *tls.CertificateVerificationError
		goaway *session.GoAwayError
		reset  *session.ResetError
	)
	if errors.As(err, &hint) {
		f.hint = hint.hint
	}
	switch {
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return failure{exit: exitInterrupted, quiet: true}
	case errors.As(err, &usage):
		f.exit, f.code = exitUsage, "usage"
	case errors.As(err, &relay):
		f = failure{
			exit: exitOther, code: string(relay.Code), text: relay.Detail, hint: relay.Hint,
			bridgeID: relay.BridgeID, deviceCode: relay.DeviceCode,
		}
		if code, ok := codeExits[relay.Code]; ok {
			f.exit = code
		}
	case errors.Is(err, client.ErrNoSession):
		f.exit, f.code = exitRefused, "no_session"
		f.hint = "is its agent up to date? bridge raw works without a session"
	case errors.As(err, &open):
		f.exit, f.code, f.deviceCode = exitRefused, string(wire.DeviceRefused), open.Code
		f.text = fmt.Sprintf("the device refused target %q: %s: %s", open.Target, open.Code, open.Message)
		f.hint = openHints[open.Code]
	case errors.As(err, &cert):
		f.exit, f.code = exitUnreachable, "tls"
		f.hint = "if the relay has a certificate of your own CA, name that CA with --ca-file or BRIDGE_CA_FILE"
	case errors.Is(err, session.ErrLost), errors.Is(err, session.ErrDead), errors.Is(err, session.ErrProtocol), errors.As(err, &goaway), errors.As(err, &reset):
		f.exit, f.code = exitLost, "lost"
	case errors.As(err, &netErr), errors.Is(err, context.DeadlineExceeded), errors.As(err, new(net.Error)):
		f.exit, f.code = exitUnreachable, "unreachable"
		f.hint = "is the relay's address right, and is there a way to it from here? behind a proxy, set HTTPS_PROXY"
	}
	return f
}

// openHints say what to try after a device refused one stream.
var openHints = map[string]string{
	"target_not_allowed": "the device's owner lists what may be reached; ask for this target",
	"dial_failed":        "is the service on the device running, and is this its port?",
	"limit_reached":      "close streams that are not needed",
}
