package testlog_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/test/testlog"
)

func TestKeep(t *testing.T) {
	l := testlog.Buffer{Keep: 10}
	for i := range 1000 {
		fmt.Fprintf(&l, "%d\n", i)
	}
	if got := l.String(); !strings.HasSuffix(got, "998\n999\n") || len(got) < 10 || len(got) > 30 {
		t.Errorf("got %q", got)
	}
}

func TestWait(t *testing.T) {
	var l testlog.Buffer
	fmt.Fprint(&l, "port=")
	var wg sync.WaitGroup
	wg.Go(func() { fmt.Fprintln(&l, "81") })
	if m := l.Wait(t, time.Minute, `port=(\d+)\n`); m[1] != "81" {
		t.Errorf("got %q", m)
	}
	wg.Wait()
}

// failing is a test that fails, and goes on in the end.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func TestWaitInVain(t *testing.T) {
	var l testlog.Buffer
	fmt.Fprintln(&l, "no luck")
	f := &failing{TB: t}
	defer func() {
		if recover() != f || !strings.Contains(f.said, "no luck") || !strings.Contains(f.said, "ready") {
			t.Errorf("got %q", f.said)
		}
	}()
	l.Wait(f, time.Millisecond, "ready")
}
