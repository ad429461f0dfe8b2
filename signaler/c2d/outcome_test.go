package c2d

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
)

var sentinels = []error{
	signaler.ErrDeviceNotFound, signaler.ErrDeviceOffline, signaler.ErrRefused, signaler.ErrTimedOut, signaler.ErrThrottled,
	signaler.ErrUnauthorized, signaler.ErrNotSupported, signaler.ErrTooBig, signaler.ErrUnavailable,
}

// one returns the one sentinel that err wraps.
func one(t *testing.T, err error) error {
	t.Helper()
	var said []error
	for _, s := range sentinels {
		if errors.Is(err, s) {
			said = append(said, s)
		}
	}
	if len(said) != 1 {
		t.Errorf("%v is %q", err, said)
		return nil
	}
	return said[0]
}

func TestRejection(t *testing.T) {
	for _, tt := range []struct {
		condition   amqp.ErrCond
		description string
		want        error
		again       bool
		text        string // in the error
	}{
		{"amqp:not-found", `{"errorCode":404001,"trackingId":"8f-G:2-TimeStamp:x","message":"pump-8","timestampUtc":"y"}`, signaler.ErrDeviceNotFound, false, ": 404001 pump-8 [tracking 8f-G:2-TimeStamp:x]"},
		{"amqp:not-found", "ErrorCode:DeviceNotFound;pump-8", signaler.ErrDeviceNotFound, false, "ErrorCode:DeviceNotFound;pump-8"},
		{"amqp:not-found", `{"errorCode":404010}`, signaler.ErrDeviceNotFound, false, "404010"},
		{"amqp:not-found", `{"errorCode":404006}`, signaler.ErrUnavailable, false, "404006"},
		{"amqp:not-found", "", signaler.ErrDeviceNotFound, false, "amqp:not-found"},
		{"amqp:unauthorized-access", "", signaler.ErrUnauthorized, false, "ServiceConnect"},
		{"amqp:resource-limit-exceeded", `{"errorCode":403004}`, signaler.ErrThrottled, false, "queue is full"},
		{"com.microsoft:device-container-throttled", `{"errorCode":429001}`, signaler.ErrThrottled, false, ""},
		{"com.microsoft:quota-exceeded", `{"errorCode":403002}`, signaler.ErrThrottled, false, "midnight UTC"},
		{"amqp:link:message-size-exceeded", "", signaler.ErrTooBig, false, ""},
		{"amqp:not-allowed", `{"errorCode":403010,"message":"not in tier"}`, signaler.ErrNotSupported, false, "not in tier"},
		{"amqp:not-allowed", "", signaler.ErrUnavailable, false, ""},
		{"amqp:not-implemented", "", signaler.ErrNotSupported, false, ""},
		{"com.microsoft:argument-error", `{"errorCode":403009}`, signaler.ErrUnavailable, false, "clock"},
		{"com.microsoft:argument-error", "", signaler.ErrUnavailable, false, "clock"},
		{"com.microsoft:argument-out-of-range", "", signaler.ErrUnavailable, false, ""},
		{"com.microsoft:precondition-failed", "", signaler.ErrUnavailable, false, ""},
		{"com.microsoft:iot-hub-suspended", "", signaler.ErrUnavailable, false, "suspended"},
		{"com.microsoft:iot-hub-not-found-error", "", signaler.ErrUnavailable, false, "fail over"},
		{"com.microsoft:timeout", "", signaler.ErrUnavailable, true, ""},
		{"amqp:internal-error", "", signaler.ErrUnavailable, true, ""},
		{"amqp:link:detach-forced", "Server Busy. Please retry operation", signaler.ErrUnavailable, true, "Server Busy"},
		{"amqp:connection:forced", "", signaler.ErrUnavailable, true, ""},
		{condReleased, "", signaler.ErrUnavailable, true, ""},
		{condModified, "", signaler.ErrUnavailable, true, ""},
		{condRejected, "", signaler.ErrUnavailable, false, ""},
		{condNoOutcome, "", signaler.ErrUnavailable, false, ""},
		{"some:thing-new", "{broken", signaler.ErrUnavailable, false, "{broken"},
		{"", "", signaler.ErrUnavailable, false, ""},
	} {
		err := rejection(&amqp.Error{Condition: tt.condition, Description: tt.description})
		if got := one(t, err); got != tt.want || err.again != tt.again {
			t.Errorf("%s %s: got %v (again %t), want %v (again %t)", tt.condition, tt.description, got, err.again, tt.want, tt.again)
		}
		if text := err.Error(); !strings.Contains(text, tt.text) || !strings.Contains(text, string(tt.condition)) {
			t.Errorf("got %q, want %q in it", text, tt.text)
		}
	}
	for condition := range conditions {
		one(t, rejection(&amqp.Error{Condition: condition}))
		one(t, linkError(&amqp.Error{Condition: condition}))
	}
	if got := one(t, rejection(nil)); got != signaler.ErrUnavailable {
		t.Errorf("nil: got %v", got)
	}
}

// TestLinkError: what a link is told is about no device and no message.
func TestLinkError(t *testing.T) {
	for condition, want := range map[amqp.ErrCond]error{
		"amqp:not-found": signaler.ErrUnavailable, "amqp:link:message-size-exceeded": signaler.ErrUnavailable,
		"amqp:unauthorized-access": signaler.ErrUnauthorized, "amqp:resource-limit-exceeded": signaler.ErrThrottled,
		"com.microsoft:iot-hub-not-found-error": signaler.ErrUnavailable,
	} {
		err := linkError(&amqp.Error{Condition: condition})
		if got := one(t, err); got != want || strings.Contains(err.Error(), "queue") {
			t.Errorf("%s: got %v, want %v", condition, err, want)
		}
	}
	if got := one(t, linkError(nil)); got != signaler.ErrUnavailable {
		t.Errorf("nil: got %v", got)
	}
}

func TestOpenError(t *testing.T) {
	no := &amqp.Error{Condition: "amqp:unauthorized-access", Description: "no"}
	for _, tt := range []struct{ err, want error }{
		{no, signaler.ErrUnauthorized},
		{&amqp.ConnError{RemoteErr: no}, signaler.ErrUnauthorized},
		{&amqp.SessionError{RemoteErr: no}, signaler.ErrUnauthorized},
		{&amqp.DetachError{RemoteErr: no}, signaler.ErrUnauthorized},
		{linkError(no), signaler.ErrUnauthorized},
		{&tokenError{401, "x"}, signaler.ErrUnauthorized},
		{&tokenError{403, "x"}, signaler.ErrUnauthorized},
		{&tokenError{429, "x"}, signaler.ErrThrottled},
		{&tokenError{404, "x"}, signaler.ErrUnavailable},
		{&amqp.ConnError{}, signaler.ErrUnavailable},
		{&amqp.DetachError{}, signaler.ErrUnavailable},
		{errors.New("connection refused"), signaler.ErrUnavailable},
	} {
		err := openError("dial", tt.err)
		if got := one(t, err); got != tt.want || definite(err) != (tt.want == signaler.ErrUnauthorized) || !strings.Contains(err.Error(), "dial") {
			t.Errorf("%T %v: got %v, want %v", tt.err, tt.err, err, tt.want)
		}
	}
}

func TestErrorIsOneLine(t *testing.T) {
	err := rejection(&amqp.Error{Condition: "a\nb", Description: "x\x1b[31m\ny" + strings.Repeat("ä", 1000)})
	if text := err.Error(); strings.ContainsAny(text, "\n\x1b") || len(text) > 600 || !utf8.ValidString(text) {
		t.Errorf("got %q", text)
	}
}

// FuzzDescribe: whatever a hub says makes an error of one line and of a fair length.
func FuzzDescribe(f *testing.F) {
	f.Add("amqp:not-found", `{"errorCode":404001,"trackingId":"8f-G:2","message":"pump-8","timestampUtc":"y"}`)
	f.Add("amqp:not-found", `{"errorCode":"404001","info":{"a":1}}`)
	f.Add("amqp:internal-error", "ErrorCode:ServerError;x")
	f.Add("x:y", ` {"errorCode":1e99}`)
	f.Add("", "{")
	f.Fuzz(func(t *testing.T, condition, text string) {
		for _, err := range []error{rejection(&amqp.Error{Condition: amqp.ErrCond(condition), Description: text}), linkError(&amqp.Error{Condition: amqp.ErrCond(condition), Description: text})} {
			one(t, err)
			if s := err.Error(); strings.ContainsAny(s, "\r\n\x1b\x00") || len(s) > 1000 {
				t.Errorf("got %q", s)
			}
		}
	})
}

func TestParseFeedback(t *testing.T) {
	got, err := parseFeedback([]byte(`[
		{"originalMessageId":"b1","description":"Success","deviceGenerationId":"1","deviceId":"pump-7","enqueuedTimeUtc":"2026-01-02T03:04:05.1234567Z"},
		{"originalMessageId":"b2","statusCode":"Expired","deviceId":"pump-8","enqueuedTimeUtc":"?"},{}]`))
	if err != nil || len(got) != 3 {
		t.Fatalf("got %v, %v", got, err)
	}
	want := "[{b1 pump-7 Success Success 2026-01-02 03:04:05.1234567 +0000 UTC} {b2 pump-8 Expired  0001-01-01 00:00:00 +0000 UTC} {  Success  0001-01-01 00:00:00 +0000 UTC}]"
	if s := fmt.Sprint(got); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	for _, bad := range []string{"", "{}", "[1]", `[{"deviceId":1}]`, "[", "null null"} {
		if got, err := parseFeedback([]byte(bad)); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func FuzzFeedback(f *testing.F) {
	f.Add([]byte(`[{"originalMessageId":"b1","statusCode":"Expired","deviceId":"pump-7","enqueuedTimeUtc":"2026-01-02T03:04:05.1234567Z"}]`))
	f.Add([]byte(`[{}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseFeedback(b)
		if err != nil && records != nil {
			t.Error("records and an error")
		}
		for _, r := range records {
			if r.Status == "" {
				t.Errorf("got %+v", r)
			}
		}
	})
}
