package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"websocketbridge/signaler"
)

// Faults is what goes wrong. Each field acts by itself; the zero value is a hub
// without faults. They apply to signals for every device, in the order of the
// fields: an Error answers before a Refuse does.
type Faults struct {
	// Error answers every signal at once, and nothing is delivered.
	Error FaultError
	// RetryAfter goes with Throttled; 0: the hub does not say.
	RetryAfter time.Duration
	// Hang leaves every signal without an answer until its ctx or the
	// AnswerTimeout ends. Nothing is delivered.
	Hang bool
	// Refuse answers every signal to a connected device in its name, and nothing
	// is delivered. Method mode only: a message has no answer.
	Refuse *signaler.Refusal
	// Lose takes the signal and never delivers it. In Message mode Signal returns
	// nil; in Method mode it returns ErrTimedOut after the AnswerTimeout.
	LoseAll   bool
	LoseEvery int // every Nth signal
	LoseNext  int // the next N signals; counts down
	// Delay passes before a signal is delivered.
	Delay time.Duration
	// Duplicate is how many more times each signal is delivered. The first
	// answer counts.
	Duplicate int
	// Reorder holds every other signal to a device back until the next one to it
	// was delivered, or until SetFaults.
	Reorder bool
}

// A FaultError names one of signaler's sentinels.
type FaultError string

// The names of Faults.Error.
const (
	NotFound     FaultError = "not_found"     // signaler.ErrDeviceNotFound
	Offline      FaultError = "offline"       // signaler.ErrDeviceOffline
	Timeout      FaultError = "timeout"       // signaler.ErrTimedOut
	Throttled    FaultError = "throttled"     // signaler.ErrThrottled, with RetryAfter
	Unauthorized FaultError = "unauthorized"  // signaler.ErrUnauthorized
	NotSupported FaultError = "not_supported" // signaler.ErrNotSupported
	Unavailable  FaultError = "unavailable"   // signaler.ErrUnavailable
)

var faultErrors = map[FaultError]error{
	NotFound: signaler.ErrDeviceNotFound, Offline: signaler.ErrDeviceOffline, Timeout: signaler.ErrTimedOut,
	Throttled: signaler.ErrThrottled, Unauthorized: signaler.ErrUnauthorized,
	NotSupported: signaler.ErrNotSupported, Unavailable: signaler.ErrUnavailable,
}

// FaultFor returns the fault that makes Signal answer with err.
func FaultFor(err error) (Faults, bool) {
	for name, sentinel := range faultErrors {
		if errors.Is(err, sentinel) {
			f := Faults{Error: name}
			if t, ok := errors.AsType[*signaler.ThrottledError](err); ok {
				f.RetryAfter = t.RetryAfter
			}
			return f, true
		}
	}
	return Faults{}, false
}

// err is what Error answers; nil: the hub works.
func (f *Faults) err() error {
	if f.Error == Throttled {
		return &signaler.ThrottledError{RetryAfter: f.RetryAfter}
	}
	return faultErrors[f.Error]
}

// maxDuplicate keeps a slip of the finger from filling the memory.
const maxDuplicate = 100

func (f *Faults) validate(m Mode) error {
	var errs []error
	if _, ok := faultErrors[f.Error]; f.Error != "" && !ok {
		errs = append(errs, fmt.Errorf("error %q is not known", string(f.Error)))
	}
	if f.RetryAfter < 0 || f.Delay < 0 || f.LoseEvery < 0 || f.LoseNext < 0 || f.Duplicate < 0 {
		errs = append(errs, errors.New("a value is negative"))
	}
	if f.RetryAfter != 0 && f.Error != Throttled {
		errs = append(errs, fmt.Errorf("retryAfter goes with error %q only", string(Throttled)))
	}
	if f.Duplicate > maxDuplicate {
		errs = append(errs, fmt.Errorf("duplicate is %d; %d are allowed", f.Duplicate, maxDuplicate))
	}
	if f.Refuse != nil && m != Method {
		errs = append(errs, errors.New("refuse needs method mode: a message has no answer"))
	}
	return errors.Join(errs...)
}

// SetFaults replaces the faults and lets go of what Reorder held back.
func (h *Hub) SetFaults(f Faults) error {
	if err := f.validate(h.cfg.Mode); err != nil {
		return fmt.Errorf("set faults: %w", err)
	}
	f.Refuse = clone(f.Refuse)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults, h.seen = f, 0
	for _, d := range h.devices {
		d.queue = append(d.queue, d.held...)
		d.held = nil
		d.wake()
	}
	return nil
}

// Faults returns the faults in force.
func (h *Hub) Faults() Faults {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.faults
	f.Refuse = clone(f.Refuse)
	return f
}

func clone(r *signaler.Refusal) *signaler.Refusal {
	if r == nil {
		return nil
	}
	return new(*r)
}

// lose says whether this signal is lost. The caller holds mu.
func (h *Hub) lose() bool {
	h.seen++
	f := &h.faults
	if f.LoseNext > 0 {
		f.LoseNext--
		return true
	}
	return f.LoseAll || f.LoseEvery > 0 && h.seen%f.LoseEvery == 0
}

// faultsForm is the JSON form; durations are texts as in "250ms".
type faultsForm struct {
	Error      FaultError        `json:"error,omitempty"`
	RetryAfter string            `json:"retryAfter,omitempty"`
	Hang       bool              `json:"hang,omitempty"`
	Refuse     *signaler.Refusal `json:"refuse,omitempty"`
	LoseAll    bool              `json:"loseAll,omitempty"`
	LoseEvery  int               `json:"loseEvery,omitempty"`
	LoseNext   int               `json:"loseNext,omitempty"`
	Delay      string            `json:"delay,omitempty"`
	Duplicate  int               `json:"duplicate,omitempty"`
	Reorder    bool              `json:"reorder,omitempty"`
}

// MarshalJSON writes the form of the endpoint.
func (f Faults) MarshalJSON() ([]byte, error) {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return json.Marshal(faultsForm{
		Error: f.Error, RetryAfter: text(f.RetryAfter), Hang: f.Hang, Refuse: f.Refuse, LoseAll: f.LoseAll,
		LoseEvery: f.LoseEvery, LoseNext: f.LoseNext, Delay: text(f.Delay), Duplicate: f.Duplicate, Reorder: f.Reorder,
	})
}

// UnmarshalJSON reads the form of the endpoint. Members it does not know are
// errors: a misspelt fault would make a test pass for the wrong reason.
func (f *Faults) UnmarshalJSON(b []byte) error {
	var in faultsForm
	if err := decodeStrict(b, &in); err != nil {
		return err
	}
	out := Faults{
		Error: in.Error, Hang: in.Hang, Refuse: in.Refuse, LoseAll: in.LoseAll, LoseEvery: in.LoseEvery,
		LoseNext: in.LoseNext, Duplicate: in.Duplicate, Reorder: in.Reorder,
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"retryAfter", in.RetryAfter, &out.RetryAfter}, {"delay", in.Delay, &out.Delay}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return fmt.Errorf("%s is not a duration like 250ms", d.name)
		}
		*d.to = v
	}
	*f = out
	return nil
}

// decodeStrict reads one JSON value of members it knows and nothing after it.
func decodeStrict(b []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("bytes after the JSON value")
	}
	return nil
}
