package calm_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/calm"
)

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &calm.Log{To: slog.New(slog.NewTextHandler(&out, nil)), Lines: 3}
		lines := func(want int, last string) {
			t.Helper()
			got := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
			if len(got) != want || !strings.HasSuffix(got[len(got)-1], last) {
				t.Errorf("got %d lines, want %d, the last with %q:\n%s", len(got), want, last, out.String())
			}
			out.Reset()
		}
		for i := range 1000 {
			l.Log(slog.LevelInfo, "storm", "refused", "n", i)
		}
		lines(3, "n=2")
		l.Log(slog.LevelWarn, "other", "something else") // of another kind, so not held back
		lines(1, "else\"")
		time.Sleep(time.Second)
		l.Log(slog.LevelInfo, "storm", "refused", "n", 1000)
		lines(1, "n=1000 suppressed=997")
		l.Log(slog.LevelInfo, "storm", "refused", "n", 1001)
		lines(1, "n=1001")
		for range 5 {
			l.Log(slog.LevelInfo, "storm", "refused")
		}
		out.Reset()
		l.Flush()
		lines(1, `level=INFO msg="lines were left out" kind=storm suppressed=4`)
		if l.Flush(); out.Len() > 0 {
			t.Errorf("said twice: %s", &out)
		}
		for range 100 {
			l.Log(slog.LevelDebug, "quiet", "not at this level")
		}
		if l.Flush(); out.Len() > 0 {
			t.Errorf("counted although nobody wants to know: %s", &out)
		}
	})
}

// Kinds that grow without end hold no memory.
func TestManyKinds(t *testing.T) {
	var out bytes.Buffer
	l := &calm.Log{To: slog.New(slog.NewTextHandler(&out, nil)), Per: time.Hour}
	for i := range 10_000 {
		l.Log(slog.LevelInfo, fmt.Sprint("kind ", i), "line")
	}
	if n := strings.Count(out.String(), "\n"); n != 120 {
		t.Errorf("%d lines", n)
	}
}
