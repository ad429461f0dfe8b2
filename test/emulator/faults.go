package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Faults is what goes wrong. Each field acts by itself; the zero value is a hub
// without faults. Its JSON form is what the admin API and --faults take.
type Faults struct {
	// ErrorForm is the form of REST's errors: "old", "new", or "" for what was
	// seen: the new one for direct methods, the old one for all else.
	ErrorForm string `json:"errorForm,omitempty"`

	Method   *AnswerFault `json:"method,omitempty"`   // calls of direct methods
	REST     *AnswerFault `json:"rest,omitempty"`     // every other request of REST
	C2D      *C2DFault    `json:"c2d,omitempty"`      // cloud-to-device messages, when a service sends one
	Feedback *Trigger     `json:"feedback,omitempty"` // feedback that is lost

	// ListenLag is how long after its SUBSCRIBE a device still counts as not
	// listening: IoT Hub answers 404103 for a moment (azure-iot-sdk-c PR #2710).
	ListenLag Duration `json:"listenLag,omitempty"`

	// C2DDuplicate delivers a message twice: the second copy is a message of its
	// own to the protocol, and settling it does nothing.
	C2DDuplicate *Trigger `json:"c2dDuplicate,omitempty"`

	AMQP AMQPFaults `json:"amqp,omitzero"`
	MQTT MQTTFaults `json:"mqtt,omitzero"`
}

// A Trigger says when a fault strikes. A nil one never does, the zero one always.
// At most one of Nth, Every and Times is set; they count what the fault could have
// struck since the faults were set.
type Trigger struct {
	Nth    int    `json:"nth,omitempty"`    // only the Nth time, from 1
	Every  int    `json:"every,omitempty"`  // each Nth time
	Times  int    `json:"times,omitempty"`  // only the first N times
	Device string `json:"device,omitempty"` // only this device and its modules; "": all

	seen int
}

// An AnswerFault spoils an answer of REST. Delay comes first. With neither Error
// nor Stall the request is served after the Delay.
type AnswerFault struct {
	Trigger
	Error      string   `json:"error,omitempty"`      // see FaultErrors
	RetryAfter Duration `json:"retryAfter,omitempty"` // with throttled and unavailable; 0: not said
	Delay      Duration `json:"delay,omitempty"`
	Stall      bool     `json:"stall,omitempty"`   // no answer until the client goes
	Garbage    bool     `json:"garbage,omitempty"` // an answer that is HTML from something in between
}

// A C2DFault spoils the transfer of a message from a service. Delay comes first.
type C2DFault struct {
	Trigger
	Outcome     string   `json:"outcome,omitempty"`   // rejected, released, modified, or none: no answer, ever
	Condition   string   `json:"condition,omitempty"` // of rejected; "": amqp:internal-error
	Description string   `json:"description,omitempty"`
	Delay       Duration `json:"delay,omitempty"`
}

// AMQPFaults are those of the AMQP endpoint, and of AMQP over WebSocket.
type AMQPFaults struct {
	FlowWithoutNextIncomingID bool `json:"flowWithoutNextIncomingId,omitempty"` // as Gateway v2 does

	SASL string `json:"sasl,omitempty"` // required, or refused; "": as the client likes

	CBS      *CBSFault  `json:"cbs,omitempty"`      // put-token is refused
	CBSMute  *Trigger   `json:"cbsMute,omitempty"`  // put-token gets no answer
	Link     *LinkFault `json:"link,omitempty"`     // attach is answered with a detach
	Credit   *Trigger   `json:"credit,omitempty"`   // a sender gets no credit
	Cut      *Trigger   `json:"cut,omitempty"`      // the socket is cut in the middle of the answer to a transfer
	HalfOpen *Trigger   `json:"halfOpen,omitempty"` // after OPEN nothing is read or written any more
}

// A CBSFault is the answer to put-token.
type CBSFault struct {
	Trigger
	Status      int    `json:"status,omitempty"` // 0: 401
	Description string `json:"description,omitempty"`
}

// A LinkFault is the error of a detach.
type LinkFault struct {
	Trigger
	Address     string `json:"address,omitempty"`   // only links whose address holds this, in any case; "": all but $cbs
	Condition   string `json:"condition,omitempty"` // "": amqp:link:detach-forced
	Description string `json:"description,omitempty"`
}

// MQTTFaults are those of the MQTT endpoint, and of MQTT over WebSocket.
type MQTTFaults struct {
	ConnAck     *ConnAckFault `json:"connAck,omitempty"`     // CONNECT is refused
	ConnAckMute *Trigger      `json:"connAckMute,omitempty"` // CONNECT gets no answer
	PubAckDelay Duration      `json:"pubAckDelay,omitempty"` // before every PUBACK
	PubAckMute  *Trigger      `json:"pubAckMute,omitempty"`  // no PUBACK
	Cut         *Trigger      `json:"cut,omitempty"`         // the socket is cut in the middle of a PUBLISH to the device
	HalfOpen    *Trigger      `json:"halfOpen,omitempty"`    // after CONNACK nothing is read or written any more, and the socket stays
	Deaf        *DeafFault    `json:"deaf,omitempty"`        // a SUBSCRIBE has no effect
	PingMute    *Trigger      `json:"pingMute,omitempty"`    // no PINGRESP

	MethodQoS       int      `json:"methodQoS,omitempty"`       // of requests of direct methods: 0 or 1
	PropertiesFirst bool     `json:"propertiesFirst,omitempty"` // application properties before system ones in the bag
	Duplicate       *Trigger `json:"duplicate,omitempty"`       // a message is published twice, with its packet ID and DUP
}

// A ConnAckFault is the answer to CONNECT.
type ConnAckFault struct {
	Trigger
	Code int `json:"code,omitempty"` // 1 to 5; 0: 3, server unavailable
}

// A DeafFault is what a SUBSCRIBE gets that is not heeded.
type DeafFault struct {
	Trigger
	Filter string `json:"filter,omitempty"` // only topic filters that hold this; "": all
	How    string `json:"how,omitempty"`    // refuse: SUBACK 0x80; ignore: no SUBACK; lie: SUBACK as if all were well; "": refuse
}

// faultErrors are the errors of an AnswerFault by name.
var faultErrors = map[string]func() *hubError{
	"throttled":    func() *hubError { return errThrottled(0) },
	"unauthorized": func() *hubError { return errUnauthorized("Unauthorized") },
	"quota":        func() *hubError { return errQuota("hub", 400_000, 400_001) },
	"unavailable":  errUnavailable,
	"internal":     errInternal,
	"tier":         func() *hubError { return errTier(Basic, "The operation is") },
	"notFound":     func() *hubError { return errNoDevice(identity{Device: "device"}) },
	"notOnline":    func() *hubError { return errNotOnline(0) },
	"noAnswer":     func() *hubError { return errNoAnswer(30 * time.Second) },
	"evicted":      errEvicted,
	"disconnected": errDisconnected,
	"inFlight":     func() *hubError { return errInFlight(10) },
	"tooLarge":     func() *hubError { return errTooLarge(413, maxMethod+1, maxMethod) },
	"argument":     func() *hubError { return errArgument("An argument is wrong.") },
	"precondition": errPrecondition,
}

// FaultErrors are the names for AnswerFault.Error, sorted.
func FaultErrors() []string {
	var names []string
	for name := range faultErrors {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Validate reports everything that is wrong with f.
func (f Faults) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	oneOf := func(name, value string, allowed ...string) {
		if value != "" && !slices.Contains(allowed, value) {
			bad("%s %q is not one of %s", name, value, strings.Join(allowed, ", "))
		}
	}
	answer := func(name string, a *AnswerFault) {
		if a == nil {
			return
		}
		oneOf(name+".error", a.Error, FaultErrors()...)
		if a.RetryAfter < 0 || a.Delay < 0 {
			bad("%s: a duration is negative", name)
		}
		if a.RetryAfter > 0 && a.Error != "throttled" && a.Error != "unavailable" {
			bad("%s.retryAfter goes with the errors throttled and unavailable", name)
		}
		if a.Stall && a.Error != "" || a.Garbage && (a.Stall || a.Error != "") {
			bad("%s: at most one of error, stall and garbage may be set", name)
		}
		if a.Error == "" && !a.Stall && !a.Garbage && a.Delay == 0 {
			bad("%s does nothing: set error, stall, garbage or delay", name)
		}
	}
	oneOf("errorForm", f.ErrorForm, "old", "new")
	answer("method", f.Method)
	answer("rest", f.REST)
	if c := f.C2D; c != nil {
		oneOf("c2d.outcome", c.Outcome, "rejected", "released", "modified", "none")
		if c.Outcome == "" && c.Delay == 0 {
			bad("c2d does nothing: set outcome or delay")
		}
		if c.Condition != "" && c.Outcome != "rejected" {
			bad("c2d.condition goes with the outcome rejected")
		}
		if c.Delay < 0 {
			bad("c2d.delay is negative")
		}
	}
	if f.ListenLag < 0 {
		bad("listenLag is negative")
	}
	oneOf("amqp.sasl", f.AMQP.SASL, "required", "refused")
	if c := f.AMQP.CBS; c != nil && (c.Status < 0 || c.Status > 599 || c.Status == 200 || c.Status == 202) {
		bad("amqp.cbs.status is %d; it is to be an error's", c.Status)
	}
	if c := f.MQTT.ConnAck; c != nil && (c.Code < 0 || c.Code > 5) {
		bad("mqtt.connAck.code is %d; MQTT 3.1.1 has 1 to 5", c.Code)
	}
	if f.MQTT.PubAckDelay < 0 {
		bad("mqtt.pubAckDelay is negative")
	}
	if d := f.MQTT.Deaf; d != nil {
		oneOf("mqtt.deaf.how", d.How, "refuse", "ignore", "lie")
	}
	if q := f.MQTT.MethodQoS; q != 0 && q != 1 {
		bad("mqtt.methodQoS is %d; it is 0 or 1", q)
	}
	for name, t := range f.triggers() {
		set := 0
		for _, n := range []int{t.Nth, t.Every, t.Times} {
			if n < 0 {
				bad("%s: a count is negative", name)
			}
			if n != 0 {
				set++
			}
		}
		if set > 1 {
			bad("%s: at most one of nth, every and times may be set", name)
		}
	}
	return errors.Join(errs...)
}

// triggers yields those that are set, by the names of the JSON form.
func (f *Faults) triggers() func(func(string, *Trigger) bool) {
	return func(yield func(string, *Trigger) bool) {
		type named struct {
			name string
			t    *Trigger
		}
		all := []named{
			{"feedback", f.Feedback}, {"c2dDuplicate", f.C2DDuplicate},
			{"amqp.cbsMute", f.AMQP.CBSMute}, {"amqp.credit", f.AMQP.Credit}, {"amqp.cut", f.AMQP.Cut}, {"amqp.halfOpen", f.AMQP.HalfOpen},
			{"mqtt.connAckMute", f.MQTT.ConnAckMute}, {"mqtt.pubAckMute", f.MQTT.PubAckMute}, {"mqtt.cut", f.MQTT.Cut},
			{"mqtt.halfOpen", f.MQTT.HalfOpen}, {"mqtt.pingMute", f.MQTT.PingMute}, {"mqtt.duplicate", f.MQTT.Duplicate},
		}
		if f.Method != nil {
			all = append(all, named{"method", &f.Method.Trigger})
		}
		if f.REST != nil {
			all = append(all, named{"rest", &f.REST.Trigger})
		}
		if f.C2D != nil {
			all = append(all, named{"c2d", &f.C2D.Trigger})
		}
		if f.AMQP.CBS != nil {
			all = append(all, named{"amqp.cbs", &f.AMQP.CBS.Trigger})
		}
		if f.AMQP.Link != nil {
			all = append(all, named{"amqp.link", &f.AMQP.Link.Trigger})
		}
		if f.MQTT.ConnAck != nil {
			all = append(all, named{"mqtt.connAck", &f.MQTT.ConnAck.Trigger})
		}
		if f.MQTT.Deaf != nil {
			all = append(all, named{"mqtt.deaf", &f.MQTT.Deaf.Trigger})
		}
		for _, n := range all {
			if n.t != nil && !yield(n.name, n.t) {
				return
			}
		}
	}
}

// A Duration is a time.Duration that JSON writes as "250ms".
type Duration time.Duration

// MarshalText writes "250ms".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "250ms".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%.40q is not a duration like 250ms", b)
	}
	*d = Duration(v)
	return nil
}

// ParseFaults reads the JSON form. Members that it does not know are errors: a
// misspelt fault would make a test pass for the wrong reason.
func ParseFaults(b []byte) (Faults, error) {
	var f Faults
	if err := decodeStrict(b, &f); err != nil {
		return Faults{}, fmt.Errorf("faults: %w", err)
	}
	if err := f.Validate(); err != nil {
		return Faults{}, fmt.Errorf("faults: %w", err)
	}
	return f, nil
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
