package method_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"websocketbridge/signaler/method"
)

// oneLine wants words that fit a log.
func oneLine(t *testing.T, s string, most int) {
	t.Helper()
	if len(s) > most || !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\n\r\t\x1b\u202e\u2028\ufffd") {
		t.Errorf("%d bytes: %q", len(s), s)
	}
}

// Whatever the hub, or what stands for it, answers: it is one of signaler's facts, in
// one short line.
func FuzzErrorBody(f *testing.F) {
	for _, body := range []string{
		`{"Message":"{\"errorCode\":404103,\"trackingId\":\"2ce0-G:0-TimeStamp:08/24/2018 17:49:33\",\"message\":\"Timed out waiting for device to connect.\",\"info\":{\"timeout\":\"00:00:00\"},\"timestampUtc\":\"2018-08-24T17:49:33.201157Z\"}","ExceptionMessage":""}`,
		`{"Message":"ErrorCode:DeviceNotOnline;Timed out","ExceptionMessage":"Tracking ID:66b8-G:5-TimeStamp:01/18/2017 08:11:45"}`,
		`{"message":"{\"Message\":\"{\\\"errorCode\\\":504101}\",\"ExceptionMessage\":\"\"}"}`,
		`{"errorCode":"404001"}`, `{"Message":{"errorCode":404001}}`, `{"Message":"ErrorCode:404001"}`, `{"Message":"{{{{"}`, `null`, `[]`, `<html>`, ``,
		`{"errorCode":-9e99,"trackingId":1,"message":"\u0000\ud800"}`,
	} {
		f.Add(404, "DeviceNotOnline", body)
		f.Add(500, "\x1b[31m", body)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, status int, name, body string) {
		words, is := method.JudgeError(status, http.Header{"Iothub-Errorcode": {name}}, []byte(body), now)
		if !slices.Contains(sentinels, is) {
			t.Errorf("it is %v", is)
		}
		oneLine(t, words, 700)
	})
}

// Whatever the device answers: it accepts, or refuses in words that can be shown.
func FuzzMethodAnswer(f *testing.F) {
	for _, body := range []string{
		`{"status":200,"payload":null}`, `{"status":0}`, `{"status":404,"payload":{"code":"target_unknown","message":"no"}}`,
		`{"status":500,"payload":"text"}`, `{"status":500,"payload":{"code":1,"message":2,"error":3}}`, `{"status":"200"}`, `{"status":2e2}`,
		`{"Status":200,"status":500}`, `{"status":99999999999999999999}`, `{"status":500,"payload":{"code":"\u202e\ud800","message":"\u0000"}}`, ``, `null`, `{}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		no, err := method.ParseAnswer([]byte(body))
		switch {
		case err != nil && no != nil:
			t.Error("both")
		case err != nil && !strings.Contains(err.Error(), "IoT Hub"):
			t.Errorf("got %v", err)
		case no != nil:
			if no.Code == "" || no.Message == "" {
				t.Errorf("got %+v", no)
			}
			oneLine(t, no.Code, 64)
			oneLine(t, no.Message, 1000)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for _, v := range []string{"", "3", "-3", "3.5", "999999999999999999999", "Sat, 21 Nov 2026 10:00:20 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "９"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if d := method.RetryAfter(v, now); d < 0 || d > method.MaxRetryAfter {
			t.Errorf("%q: %v", v, d)
		}
	})
}
