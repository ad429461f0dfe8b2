package emulator

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A hubError is what the hub answers instead of doing something. Protocols show
// what they can: REST the status, the code and the name, AMQP the condition, MQTT
// a closed connection.
//
// It is no error on purpose: a nil *hubError in an error is not nil.
type hubError struct {
	Status     int    // of HTTP
	Code       int    // six digits: 404103
	Name       string // DeviceNotOnline; the header iothub-errorcode
	Condition  string // of AMQP
	Message    string
	Info       map[string]string // more of the new form; may be nil
	RetryAfter time.Duration     // 0: not said
	Outcome    outcome           // of a cloud-to-device message's transfer
	Close      bool              // cut the connection and say nothing
}

// An outcome is what AMQP answers to a transfer that was not accepted.
type outcome int

const (
	outcomeRejected outcome = iota // with the condition
	outcomeReleased
	outcomeModified
	outcomeNone // no answer, ever
)

// String names the error for logs and tests.
func (e *hubError) String() string {
	if e == nil {
		return "no error"
	}
	return fmt.Sprintf("%d %s: %s", e.Code, e.Name, e.Message)
}

// The AMQP conditions of hubError.
const (
	conditionNotFound      = "amqp:not-found"
	conditionUnauthorized  = "amqp:unauthorized-access"
	conditionQueueFull     = "amqp:resource-limit-exceeded"
	conditionTooLarge      = "amqp:link:message-size-exceeded"
	conditionNotAllowed    = "amqp:not-allowed"
	conditionInternal      = "amqp:internal-error"
	conditionDetachForced  = "amqp:link:detach-forced"
	conditionThrottled     = "com.microsoft:device-container-throttled"
	conditionQuota         = "com.microsoft:quota-exceeded"
	conditionArgument      = "com.microsoft:argument-error"
	conditionPrecondition  = "com.microsoft:precondition-failed"
	conditionAlreadyExists = "com.microsoft:device-already-exists"
	conditionTimeout       = "com.microsoft:timeout"
	conditionLockLost      = "com.microsoft:message-lock-lost"
)

func errArgument(format string, args ...any) *hubError {
	return &hubError{Status: 400, Code: 400004, Name: "ArgumentInvalid", Condition: conditionArgument, Message: fmt.Sprintf(format, args...)}
}

func errEvicted() *hubError {
	return &hubError{Status: 400, Code: 400027, Name: "ConnectionForcefullyClosedOnNewConnection", Condition: conditionNotAllowed,
		Message: "The connection was closed because the same device or module connected again."}
}

func errUnauthorized(format string, args ...any) *hubError {
	return &hubError{Status: 401, Code: 401003, Name: "IotHubUnauthorizedAccess", Condition: conditionUnauthorized, Message: fmt.Sprintf(format, args...)}
}

func errQuota(host string, limit, used int) *hubError {
	return &hubError{Status: 403, Code: 403002, Name: "IotHubQuotaExceeded", Condition: conditionQuota,
		Message: fmt.Sprintf("Total number of messages on IotHub '%s' exceeded the allocated quota. Max allowed message count: '%d', current message count: '%d'.", host, limit, used)}
}

func errQueueFull(n int) *hubError {
	return &hubError{Status: 403, Code: 403004, Name: "DeviceMaximumQueueDepthExceeded", Condition: conditionQueueFull,
		Message: fmt.Sprintf("Device queue depth is at its maximum of %d messages.", n)}
}

func errExpiry(format string, args ...any) *hubError {
	return &hubError{Status: 403, Code: 403009, Name: "InvalidMessageExpiryTime", Condition: conditionArgument, Message: fmt.Sprintf(format, args...)}
}

func errTier(t Tier, what string) *hubError {
	return &hubError{Status: 403, Code: 403010, Name: "OperationNotAvailableInCurrentTier", Condition: conditionNotAllowed,
		Message: fmt.Sprintf("%s not available in tier %v.", what, t)}
}

func errInFlight(n int) *hubError {
	return &hubError{Status: 403, Code: 403800, Name: "DeviceMaximumInflightMethodExceeded", Condition: conditionQueueFull,
		Message: fmt.Sprintf("The device has %d direct methods in flight.", n)}
}

func errNoDevice(id identity) *hubError {
	return &hubError{Status: 404, Code: 404001, Name: "DeviceNotFound", Condition: conditionNotFound, Message: id.Device}
}

func errNoModule(id identity) *hubError {
	return &hubError{Status: 404, Code: 404010, Name: "ModuleNotFound", Condition: conditionNotFound, Message: id.String()}
}

// errAddress is for an AMQP link or a REST path that the hub does not have.
func errAddress(address string) *hubError {
	return &hubError{Status: 404, Code: 404006, Name: "AmqpAddressNotFound", Condition: conditionNotFound, Message: fmt.Sprintf("There is no %q.", address)}
}

func errNotOnline(waited time.Duration) *hubError {
	return &hubError{Status: 404, Code: 404103, Name: "DeviceNotOnline", Condition: conditionNotFound,
		Message: "Timed out waiting for device to connect.", Info: map[string]string{"timeout": clock(waited)}}
}

func errDisconnected() *hubError {
	return &hubError{Status: 404, Code: 404104, Name: "DeviceConnectionClosedRemotely", Condition: conditionNotFound, Message: "Device unavailable"}
}

func errExists(id identity) *hubError {
	e := &hubError{Status: 409, Code: 409001, Name: "DeviceAlreadyExists", Condition: conditionAlreadyExists,
		Message: fmt.Sprintf("A device with ID '%s' is already registered.", id.Device)}
	if id.Module != "" {
		e.Code, e.Name = 409301, "ModuleAlreadyExistsOnDevice"
		e.Message = fmt.Sprintf("Module '%s' is already registered on device '%s'.", id.Module, id.Device)
	}
	return e
}

func errPrecondition() *hubError {
	return &hubError{Status: 412, Code: 412001, Name: "PreconditionFailed", Condition: conditionPrecondition,
		Message: "Precondition failed: the etag does not match the one in the hub."}
}

func errTooLarge(status int, size, limit int) *hubError {
	return &hubError{Status: status, Code: 413001, Name: "MessageTooLarge", Condition: conditionTooLarge,
		Message: fmt.Sprintf("%d bytes are more than %d.", size, limit)}
}

func errThrottled(retryAfter time.Duration) *hubError {
	return &hubError{Status: 429, Code: 429001, Name: "ThrottlingException", Condition: conditionThrottled,
		Message: "Operations are throttled: the hub's rate is exceeded.", RetryAfter: retryAfter}
}

func errInternal() *hubError {
	return &hubError{Status: 500, Code: 500001, Name: "ServerError", Condition: conditionInternal, Message: "The server encountered an internal error."}
}

func errUnavailable() *hubError {
	return &hubError{Status: 503, Code: 503003, Name: "ServiceUnavailable", Condition: conditionDetachForced, Message: "Server Busy. Please retry operation"}
}

func errNoAnswer(waited time.Duration) *hubError {
	return &hubError{Status: 504, Code: 504101, Name: "GatewayTimeout", Condition: conditionTimeout,
		Message: "Timed out waiting for the response from device.", Info: map[string]string{"timeout": clock(waited)}}
}

// clock is how .NET prints a span: 00:00:30.
func clock(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// trackingID is what Microsoft's support asks for.
func trackingID(now time.Time) string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:]) + "-G:0-TimeStamp:" + now.UTC().Format("01/02/2006 15:04:05")
}

// An errorForm is how an error's body looks. IoT Hub has used both.
type errorForm int

const (
	formOld errorForm = iota // {"Message":"ErrorCode:Name;text","ExceptionMessage":"Tracking ID:…"}
	formNew                  // {"Message":"{\"errorCode\":404103,…}","ExceptionMessage":""}
)

// body is the answer's body in REST.
func (e *hubError) body(form errorForm) []byte {
	now := time.Now()
	answer := struct{ Message, ExceptionMessage string }{
		Message:          "ErrorCode:" + e.Name + ";" + e.Message,
		ExceptionMessage: "Tracking ID:" + trackingID(now),
	}
	if form == formNew {
		answer.Message, answer.ExceptionMessage = e.describe(), ""
	}
	b, _ := json.Marshal(answer) // of strings
	return b
}

// describe is the new form's inner text, which AMQP uses as the description of an
// error.
func (e *hubError) describe() string {
	now := time.Now()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(struct { // of strings
		ErrorCode    int               `json:"errorCode"`
		TrackingID   string            `json:"trackingId"`
		Message      string            `json:"message"`
		Info         map[string]string `json:"info,omitempty"`
		TimestampUTC string            `json:"timestampUtc"`
	}{e.Code, trackingID(now), e.Message, e.Info, stamp(now)})
	return strings.TrimSuffix(b.String(), "\n")
}

// stamp is a time as the hub writes it; the zero time means never.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format("2006-01-02T15:04:05.0000000Z")
}
