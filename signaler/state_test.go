package signaler_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
)

func TestSourceRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r signaler.SourceRecord
		start := time.Now()
		check := func(what string, listening bool, since time.Duration, times uint64, fault string, at time.Duration) {
			t.Helper()
			want := signaler.SourceState{Kind: "hub", To: "h:8883", Listening: listening, Since: start.Add(since), Times: times, Error: fault}
			if fault != "" {
				want.ErrorAt = start.Add(at)
			}
			if got := r.State(); got != want {
				t.Errorf("%s: got %+v, want %+v", what, got, want)
			}
			time.Sleep(time.Second)
		}
		r.Begin("hub", "h:8883")
		check("begun", false, 0, 0, "", 0)
		r.Down(errors.New("refused"))
		check("not reached", false, 0, 0, "refused", time.Second)
		r.Up()
		check("up", true, 2*time.Second, 1, "refused", time.Second)
		r.Down(nil)
		check("planned", false, 3*time.Second, 1, "refused", time.Second)
		r.Up()
		check("as if nothing had been", true, 2*time.Second, 2, "refused", time.Second)
		r.Down(nil)
		r.Down(errors.New("no way back"))
		check("planned, and then not", false, 5*time.Second, 2, "no way back", 5*time.Second)
		r.Up()
		check("back", true, 6*time.Second, 3, "no way back", 5*time.Second)
		r.Down(errors.New("lost"))
		check("lost", false, 7*time.Second, 3, "lost", 7*time.Second)
	})
}
