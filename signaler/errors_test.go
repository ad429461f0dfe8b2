package signaler_test

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"websocketbridge/signaler"
)

// parseErrors are the errors of Parse; the only values in them are numbers.
var parseErrors = []*regexp.Regexp{
	regexp.MustCompile(`^has \d+ bytes; 4096 are allowed$`),
	regexp.MustCompile(`^(is not (valid UTF-8|JSON|a JSON object)|has a member (twice|in the wrong case)|has bytes after the object)$`),
	regexp.MustCompile(`^[a-zA-Z]{1,12} has the wrong type$`),
	regexp.MustCompile(`^(subprotocols has an empty one|acceptUrl is missing|v is negative)$`),
	regexp.MustCompile(`^v is \d+; this agent knows 1: upgrade it$`),
	regexp.MustCompile(`^(acceptUrl|rejectUrl) (is not a URL|is neither (ws|http):// nor (wss|https)://|needs a host, and neither user nor fragment)$`),
	regexp.MustCompile(`^expiresAt is not like 2006-01-02T15:04:05Z$`),
}

func TestRefusedError(t *testing.T) {
	no := signaler.Refusal{Code: "target_unknown", Message: "no target named ssh"}
	err := fmt.Errorf("signal device: %w", &signaler.RefusedError{Refusal: no})
	if !errors.Is(err, signaler.ErrRefused) {
		t.Error("is not ErrRefused")
	}
	if errors.Is(err, signaler.ErrThrottled) || errors.Is(err, signaler.ErrDeviceOffline) {
		t.Error("is another sentinel too")
	}
	got, ok := errors.AsType[*signaler.RefusedError](err)
	if !ok || got.Refusal != no {
		t.Errorf("got %+v, want %+v", got, no)
	}
	if got, want := err.Error(), "signal device: device refused: target_unknown: no target named ssh"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestThrottledError(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{
		{0, "hub throttles"},
		{-time.Second, "hub throttles"},
		{3 * time.Second, "hub throttles; retry after 3s"},
	} {
		err := fmt.Errorf("signal device: %w", &signaler.ThrottledError{RetryAfter: tt.after})
		if !errors.Is(err, signaler.ErrThrottled) || errors.Is(err, signaler.ErrRefused) {
			t.Errorf("%v is not ErrThrottled alone", err)
		}
		got, ok := errors.AsType[*signaler.ThrottledError](err)
		if !ok || got.RetryAfter != tt.after || got.Error() != tt.want {
			t.Errorf("got %v, want %q", got, tt.want)
		}
	}
}

func TestSentinels(t *testing.T) {
	all := []error{
		signaler.ErrDeviceNotFound, signaler.ErrDeviceOffline, signaler.ErrRefused, signaler.ErrTimedOut, signaler.ErrThrottled,
		signaler.ErrUnauthorized, signaler.ErrNotSupported, signaler.ErrUnavailable, signaler.ErrTakenOver,
	}
	texts := make(map[string]bool)
	for _, err := range all {
		if texts[err.Error()] {
			t.Errorf("%q is the text of two", err)
		}
		texts[err.Error()] = true
	}
}
