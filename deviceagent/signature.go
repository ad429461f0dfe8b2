package deviceagent

import (
	"errors"
	"time"

	"websocketbridge/signaler"
)

// checkSignature says why a signal is not believed. It logs that, too: who sends such
// signals is no relay of this device's, or a relay whose key its owner has to list.
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
	a.mu.Lock()
	dropped, tell := a.unsigned.tell(time.Now())
	a.mu.Unlock()
	if tell { // nothing of the signal itself
		a.log.Warn("signal refused, and nothing of it dialled", "reason", no.Code, "text", no.Message, "not_logged_before", dropped)
	}
	return no
}

// quietly keeps what a stranger can cause from filling the log.
type quietly struct {
	last    time.Time
	dropped int
}

// quietTime is between lines of one kind.
const quietTime = 10 * time.Second

// tell says whether to log now, and how many lines were left out since the last one.
func (q *quietly) tell(now time.Time) (dropped int, ok bool) {
	if !q.last.IsZero() && now.Sub(q.last) < quietTime {
		q.dropped++
		return 0, false
	}
	dropped = q.dropped
	q.last, q.dropped = now, 0
	return dropped, true
}
