package deviceagent

import (
	"errors"
	"log/slog"

	"websocketbridge/signaler"
)

// checkSignature says why a signal is not believed. It logs that, too, as a warning: who
// sends such signals is no relay of this device's, or one whose key its owner has to list.
func (a *Agent) checkSignature(s *signaler.Signal) *signaler.Refusal {
	if len(a.cfg.SignalKeys) == 0 {
		return nil
	}
	var no *signaler.Refusal
	switch err := signaler.CheckSignature(s, a.cfg.SignalKeys); {
	case errors.Is(err, signaler.ErrNotSigned):
		no = refuse("not_signed", "%v, and this device follows signed ones only", err)
	case err != nil:
		no = refuse("wrong_signature", "%v", err)
	case s.DeviceID == "" || s.ExpiresAt.IsZero(): // another device's, or a replay for ever
		no = refuse("wrong_signature", "the signature is good, but the signal does not say for which device and until when")
	default:
		return nil
	}
	a.logRefused(slog.LevelWarn, "signal refused, and nothing of it dialled", no) // nothing of the signal itself
	return no
}
