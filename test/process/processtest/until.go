package processtest

import (
	"errors"
	"testing"
	"time"
)

// lookEvery is how often Until looks.
const lookEvery = 10 * time.Millisecond

var errNot = errors.New("it is not so")

// Until waits for a state that nobody announces.
func Until(t testing.TB, limit time.Duration, what string, is func() bool) {
	t.Helper()
	UntilNil(t, limit, what, func() error {
		if is() {
			return nil
		}
		return errNot
	})
}

// UntilNil is Until where an error says what is missing.
func UntilNil(t testing.TB, limit time.Duration, what string, missing func() error) {
	t.Helper()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		err := missing()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %v", limit.Round(time.Millisecond), what, err)
		}
	}
}
