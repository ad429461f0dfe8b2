package main

import "websocketbridge/relay/wire"

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
  4    credentials missing or wrong  11   an open bridge was lost
  5    the hub has no such device    130  interrupted
  6    the device is offline`

// codeExits maps why a bridge was not made. Codes that are missing are
// exitOther. Whatever ends an open bridge is exitLost.
var codeExits = map[wire.Code]int{
	wire.BadRequest:       exitUsage,
	wire.Unauthenticated:  exitAuth,
	wire.BadSignature:     exitAuth,
	wire.AuthUnavailable:  exitRelay,
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
	wire.AuditFailed:      exitRelay,
	wire.Internal:         exitRelay,
	wire.UpgradeRequired:  exitRelay,
	wire.MethodNotAllowed: exitRelay,
	wire.OwnerLost:        exitRelay,
	wire.Killed:           exitRelay,

	wire.PermissionRevoked: exitAuth,
}
