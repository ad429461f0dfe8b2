package method

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"websocketbridge/signaler"
)

// ErrModuleNotFound: the hub knows the device, which has no such module. An error that
// wraps it also wraps signaler.ErrDeviceNotFound.
var ErrModuleNotFound = errors.New("the device has no such module")

// again is why a call deserves a second try.
type again int

const (
	never     again = iota
	reconnect       // the device may be on its way back
	unseen          // nobody has seen the call
	token           // the token may have been the trouble
)

// meaning is what one of the hub's codes says.
type meaning struct {
	code  int    // errorCode in the body
	name  string // iothub-errorcode in the header, ErrorCode in bodies of old
	is    error
	again again
}

// meanings is the one table of the hub's codes ("Understand and resolve Azure IoT Hub
// errors", "IoT Hub API common error codes"). What is not in it goes by its HTTP
// status, see byStatus.
var meanings = []meaning{
	{400027, "ConnectionForcefullyClosedOnNewConnection", signaler.ErrDeviceOffline, reconnect}, // two clients, one identity
	{401001, "IotHubNotFound", signaler.ErrUnavailable, never},
	{401002, "IotHubUnauthorizedAccess", signaler.ErrUnauthorized, token},
	{401003, "IotHubUnauthorized", signaler.ErrUnauthorized, token},
	{403001, "IotHubSuspended", signaler.ErrUnavailable, never},
	{403002, "IotHubQuotaExceeded", signaler.ErrThrottled, never},
	{403010, "OperationNotAvailableInCurrentTier", signaler.ErrNotSupported, never},
	{403800, "DeviceMaximumInflightMethodExceeded", signaler.ErrThrottled, never},
	{404001, "DeviceNotFound", signaler.ErrDeviceNotFound, never}, // also a disabled one
	{404010, "ModuleNotFound", signaler.ErrDeviceNotFound, never},
	{404103, "DeviceNotOnline", signaler.ErrDeviceOffline, reconnect},
	{404104, "DeviceConnectionClosedRemotely", signaler.ErrDeviceOffline, reconnect},
	{413001, "MessageTooLarge", signaler.ErrTooBig, never},
	{429001, "ThrottlingException", signaler.ErrThrottled, never},
	{429002, "ThrottleBacklogLimitExceeded", signaler.ErrThrottled, never},
	{429003, "ThrottlingBacklogTimeout", signaler.ErrThrottled, never},
	{500001, "ServerError", signaler.ErrUnavailable, never},
	{503001, "ServiceUnavailable", signaler.ErrUnavailable, unseen},
	{504101, "GatewayTimeout", signaler.ErrTimedOut, never},
}

// byStatus is for codes that are not in the table, and for answers of proxies.
func byStatus(status int) meaning {
	switch status {
	case http.StatusUnauthorized:
		return meaning{is: signaler.ErrUnauthorized, again: token}
	case http.StatusForbidden:
		return meaning{is: signaler.ErrUnauthorized}
	case http.StatusRequestEntityTooLarge:
		return meaning{is: signaler.ErrTooBig}
	case http.StatusTooManyRequests:
		return meaning{is: signaler.ErrThrottled}
	case http.StatusServiceUnavailable:
		return meaning{is: signaler.ErrUnavailable, again: unseen}
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return meaning{is: signaler.ErrTimedOut}
	}
	return meaning{is: signaler.ErrUnavailable}
}

// A hubError is an HTTP answer other than 200.
type hubError struct {
	status   int
	code     int    // 0: none
	name     string // of the code, from a body of old
	header   string // of the code, from the head
	message  string // for people
	tracking string // for Microsoft's support

	retryAfter time.Duration // 0: the hub did not say
}

const (
	maxHubMessage = 300 // bytes
	maxName       = 64
	maxTracking   = 128
)

// parseHubError reads an error's head and body. Bodies have two forms, and in the newer
// one the message is JSON inside JSON:
//
//	{"Message":"ErrorCode:DeviceNotOnline;Timed out…","ExceptionMessage":"Tracking ID:…"}
//	{"Message":"{\"errorCode\":404103,\"trackingId\":\"…\",\"message\":\"Timed out…\"}","ExceptionMessage":""}
//
// What the body says counts more than the header's name, which can be another one; a
// code that is not known counts less.
func parseHubError(status int, h http.Header, body []byte, now time.Time) hubError {
	e := hubError{status: status, retryAfter: retryAfter(h.Get("Retry-After"), now)}
	e.read(body, 3)
	e.name, e.header = printable(e.name, maxName), printable(h.Get("iothub-errorcode"), maxName)
	e.message, e.tracking = printable(e.message, maxHubMessage), printable(e.tracking, maxTracking)
	return e
}

// read takes what it knows out of an error body, in it and in the JSON in its message.
func (e *hubError) read(body []byte, depth int) {
	var in struct { // encoding/json matches Message and message
		Message          json.RawMessage
		ExceptionMessage json.RawMessage
		ErrorCode        json.RawMessage
		TrackingID       json.RawMessage
	}
	if json.Unmarshal(body, &in) != nil {
		return
	}
	switch code := text(in.ErrorCode); {
	case code == "":
	case isCode(code):
		e.code, _ = strconv.Atoi(code)
	default:
		e.name = code
	}
	if id := text(in.TrackingID); id != "" {
		e.tracking = id
	} else if id, ok := strings.CutPrefix(text(in.ExceptionMessage), "Tracking ID:"); ok {
		e.tracking = strings.TrimSpace(id)
	}
	m := text(in.Message)
	if strings.HasPrefix(m, "{") && depth > 1 {
		e.read([]byte(m), depth-1)
		return
	}
	if rest, ok := strings.CutPrefix(m, "ErrorCode:"); ok {
		name, words, _ := strings.Cut(rest, ";")
		if name = strings.TrimSpace(name); isCode(name) {
			e.code, _ = strconv.Atoi(name)
		} else {
			e.name = name
		}
		m = words
	}
	e.message = strings.TrimSpace(m)
}

// isCode: the hub's have six digits; three are an HTTP status.
func isCode(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 100_000 && n <= 999_999
}

// text is a JSON string's value or a number's digits; empty for everything else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	if bytes.IndexByte(raw, '"') < 0 && json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}

// meaning looks e up: by the code, by the name, by the words where they are all there
// is, by the HTTP status.
func (e *hubError) meaning() meaning {
	for _, m := range meanings {
		if m.code == e.code {
			return m
		}
	}
	for _, name := range []string{e.name, e.header} {
		for _, m := range meanings {
			if name != "" && strings.EqualFold(m.name, name) {
				return m
			}
		}
	}
	// Both have no code of their own in the documentation.
	switch words := strings.ToLower(e.message); {
	case e.status == http.StatusNotFound && strings.HasPrefix(words, "device unavailable"): // it left during the call
		return meaning{is: signaler.ErrDeviceOffline, again: reconnect}
	case e.status/100 == 4 && e.status != http.StatusUnauthorized && strings.Contains(words, "iot hub tier"):
		return meaning{is: signaler.ErrNotSupported}
	}
	return byStatus(e.status)
}

// String says what the hub answered, in one line.
func (e *hubError) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "hub answered %d", e.status)
	switch name := cmp.Or(e.name, e.header); {
	case e.code != 0:
		fmt.Fprintf(&b, " (%s)", strings.TrimSpace(strconv.Itoa(e.code)+" "+name))
	case name != "":
		fmt.Fprintf(&b, " (%s)", name)
	default:
		b.WriteString(" without a code of IoT Hub's")
	}
	if e.message != "" {
		fmt.Fprintf(&b, ": %s", e.message)
	}
	if e.tracking != "" {
		fmt.Fprintf(&b, " [tracking ID %s]", e.tracking)
	}
	return b.String()
}

// hint is what to try, for the operator who reads the log.
func (e *hubError) hint(m meaning) string {
	switch {
	case m.code == 400027:
		return "two clients share this identity; each needs its own"
	case m.code == 403002:
		return "the day's messages are used up until 00:00 UTC; units can be added"
	case e.status == http.StatusForbidden && m.is == signaler.ErrUnauthorized:
		return "does the hub's network filter let this address in?"
	case m.is == signaler.ErrUnauthorized:
		return "the policy needs ServiceConnect, the Entra ID identity the action IotHubs/directMethods/invoke/action"
	case m.is == signaler.ErrNotSupported:
		return "direct methods need the Standard or the free tier"
	case e.code == 0 && e.name == "" && e.header == "" && e.status < 500 && e.status != http.StatusTooManyRequests:
		return "is the host name that of an IoT Hub?"
	}
	return ""
}

// maxRetryAfter bounds what is believed: the hub counts by the minute.
const maxRetryAfter = time.Minute

// retryAfter reads a Retry-After header, seconds or a date (RFC 9110 section 10.2.3).
// 0: there is none, it cannot be read, or the time is over.
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if strings.Trim(v, "0123456789") == "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n > uint64(maxRetryAfter/time.Second) { // all digits: too many of them
			return maxRetryAfter
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
