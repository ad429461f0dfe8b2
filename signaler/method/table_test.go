package method_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/method"
)

// Every row of the table in every form that the hub has used.
func TestHubErrors(t *testing.T) {
	for _, row := range []struct {
		status, code int
		name, words  string
		want         error
		calls        int64 // with the second tries
	}{
		{400, 400004, "ArgumentInvalid", "responseTimeoutInSeconds must be within [5; 300].", signaler.ErrUnavailable, 1},
		{400, 400027, "ConnectionForcefullyClosedOnNewConnection", "Connection forcefully closed.", signaler.ErrDeviceOffline, 2},
		{400, 413001, "MessageTooLarge", "'payload' size should be less than 8192 bytes.", signaler.ErrTooBig, 1},
		{401, 401001, "IotHubNotFound", "", signaler.ErrUnavailable, 1},
		{401, 401002, "IotHubUnauthorizedAccess", "Unauthorized", signaler.ErrUnauthorized, 2},
		{401, 401003, "IotHubUnauthorized", "Principal x is not authorized for POST on /twins due to no assigned permissions", signaler.ErrUnauthorized, 2},
		{403, 403001, "IotHubSuspended", "", signaler.ErrUnavailable, 1},
		{403, 403002, "IotHubQuotaExceeded", "Total number of messages exceeded the allocated quota.", signaler.ErrThrottled, 1},
		{403, 403010, "OperationNotAvailableInCurrentTier", "", signaler.ErrNotSupported, 1},
		{403, 403800, "DeviceMaximumInflightMethodExceeded", "", signaler.ErrThrottled, 1},
		{404, 404001, "DeviceNotFound", "pump-7", signaler.ErrDeviceNotFound, 1},
		{404, 404010, "ModuleNotFound", "pump-7/bridge", signaler.ErrDeviceNotFound, 1},
		{404, 404103, "DeviceNotOnline", "Timed out waiting for device to connect.", signaler.ErrDeviceOffline, 2},
		{404, 404104, "DeviceConnectionClosedRemotely", "Device unavailable", signaler.ErrDeviceOffline, 2},
		{413, 413001, "MessageTooLarge", "", signaler.ErrTooBig, 1},
		{429, 429001, "ThrottlingException", "", signaler.ErrThrottled, 1},
		{429, 429002, "ThrottleBacklogLimitExceeded", "", signaler.ErrThrottled, 1},
		{429, 429003, "ThrottlingBacklogTimeout", "", signaler.ErrThrottled, 1},
		{500, 500001, "ServerError", "", signaler.ErrUnavailable, 1},
		{503, 503001, "ServiceUnavailable", "", signaler.ErrUnavailable, 2},
		{503, 503003, "ServiceUnavailable", "Server Busy. Please retry operation", signaler.ErrUnavailable, 2},
		{504, 504101, "GatewayTimeout", "Timed out waiting for the response from device.", signaler.ErrTimedOut, 1},
	} {
		for _, form := range []string{"new", "old", "new, another header", "old, another header", "header only", "bare"} {
			t.Run(fmt.Sprintf("%d %s/%s", row.code, row.name, form), func(t *testing.T) {
				says := func(w http.ResponseWriter, _ *http.Request) {
					hubSays(w, form, row.status, row.code, row.name, row.words)
				}
				inBubble(t, says, nil, func(t *testing.T, s *stub) {
					err := s.method.Signal(t.Context(), newSignal("pump-7"))
					check(t, err, row.want)
					if got := s.calls.Load(); got != row.calls {
						t.Errorf("%d calls, want %d", got, row.calls)
					}
					if got, want := errors.Is(err, method.ErrModuleNotFound), row.code == 404010; got != want {
						t.Errorf("is ErrModuleNotFound: %t", got)
					}
					if form == "new" && !strings.Contains(err.Error(), fmt.Sprint(row.code)) || form == "old" && !strings.Contains(err.Error(), row.name) {
						t.Errorf("the code is missing in %v", err)
					}
					if form != "header only" && !strings.Contains(err.Error(), row.words+" [tracking ID 5f3a-G:0-TimeStamp:11/21/2026 10:00:00]") {
						t.Errorf("the hub's words are missing in %v", err)
					}
				})
			})
		}
	}
}

// The table of the test has every row of the other one.
func TestMeanings(t *testing.T) {
	seen := map[int]bool{}
	for _, m := range method.Meanings() {
		if seen[m.Code] || m.Name == "" || m.Code < 400_000 || m.Code > 599_999 {
			t.Errorf("%d %q", m.Code, m.Name)
		}
		seen[m.Code] = true
		for _, form := range []string{`{"Message":"{\"errorCode\":%d}"}`, `{"errorCode":"%d"}`, `{"Message":"ErrorCode:%d;text"}`} {
			if _, is := method.JudgeError(m.Code/1000, nil, fmt.Appendf(nil, form, m.Code), time.Now()); is != m.Is {
				t.Errorf("%d: got %v, want %v", m.Code, is, m.Is)
			}
		}
		if _, is := method.JudgeError(418, http.Header{"Iothub-Errorcode": {strings.ToUpper(m.Name)}}, nil, time.Now()); is != m.Is {
			t.Errorf("%s: got %v, want %v", m.Name, is, m.Is)
		}
	}
}

// Not every answer is the hub's.
func TestOtherAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   error
		words  string
	}{
		{"a web page", 200, "<html>Sign in to the hotel's network</html>", signaler.ErrUnavailable, "is the host name that of an IoT Hub?"},
		{"no status", 200, `{"payload":{"code":"x"}}`, signaler.ErrUnavailable, "no answer of a direct method"},
		{"nothing", 200, "", signaler.ErrUnavailable, "no answer of a direct method"},
		{"another success", 204, "", signaler.ErrUnavailable, "hub answered 204 without a code"},
		{"a redirect", 302, "", signaler.ErrUnavailable, "is the host name that of an IoT Hub?"},
		{"a proxy's 403", 403, "<html>blocked</html>", signaler.ErrUnauthorized, "network filter"},
		{"a web server's 404", 404, "404 page not found\n", signaler.ErrUnavailable, "is the host name that of an IoT Hub?"},
		{"gone during the call", 404, `{"Message":"Device unavailable"}`, signaler.ErrDeviceOffline, "Device unavailable"},
		{"tier by words", 400, `{"Message":"{\"errorCode\":400003,\"message\":\"This operation is not valid for the current IoT Hub tier.\"}"}`, signaler.ErrNotSupported, "Standard or the free tier"},
		{"a code of tomorrow", 429, `{"Message":"{\"errorCode\":429999}"}`, signaler.ErrThrottled, "(429999)"},
		{"a gateway's 502", 502, "<html>", signaler.ErrUnavailable, "hub answered 502"},
		{"a gateway's 504", 504, "<html>", signaler.ErrTimedOut, "hub answered 504"},
		{"a proxy's 408", 408, "", signaler.ErrTimedOut, "hub answered 408"},
		{"endless", 500, strings.Repeat("x", 2*method.MaxBody), signaler.ErrUnavailable, "hub answered 500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			}, nil)
			err := s.method.Signal(t.Context(), newSignal("pump-7"))
			check(t, err, tt.want)
			if err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want %q", err, tt.words)
			}
		})
	}
}

// Whoever quotes the signal or the token, is not quoted.
func TestQuotations(t *testing.T) {
	sig := newSignal("pump-7")
	for name, text := range map[string]string{
		"accept URL":   "cannot parse " + sig.AcceptURL,
		"its token":    "cannot parse t0k3n-of-the-bridge here",
		"request data": "unexpected character in req-secret&<data>",
		"signature":    "bad c2VjcmV0LXNpZ25hdHVyZQ%3D%3D",
	} {
		t.Run(name, func(t *testing.T) {
			for _, status := range []int{200, 400} {
				s := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
					if status == 200 {
						fmt.Fprintf(w, `{"status":400,"payload":{"code":"bad","message":%q}}`, text)
						return
					}
					hubSays(w, "new", 400, 400004, "ArgumentInvalid", text)
				}, nil)
				err := s.method.Signal(t.Context(), sig)
				check(t, err, map[int]error{200: signaler.ErrRefused, 400: signaler.ErrUnavailable}[status])
				if !strings.Contains(err.Error(), "(left out: it quotes the signal)") {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	s := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":403,"payload":{"code":"relay_not_allowed","message":"the relay relay.example is not on this device's list"}}`)
	}, nil)
	if err := s.method.Signal(t.Context(), sig); err == nil || !strings.HasSuffix(err.Error(), "the relay relay.example is not on this device's list") {
		t.Errorf("the relay's name is no secret: %v", err)
	}
}
