//go:build linux

package process_test

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process"
)

func shell(t *testing.T, script string, env ...string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Config{Path: "/bin/sh", Args: []string{"-c", script}, Env: env, Output: filepath.Join(t.TempDir(), "out")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(0) })
	return p
}

func TestSays(t *testing.T) {
	t.Setenv("RELAY_LISTEN", "from outside")
	p := shell(t, `echo "port=$PORT relay=$RELAY_LISTEN"; exec sleep 60`, "PORT=81")
	m, err := p.Says(t.Context(), `port=(\d+) relay=(.*)\n`)
	if err != nil || m[1] != "81" || m[2] != "" {
		t.Fatalf("got %q, %v", m, err)
	}
}

func TestSaysWhyNot(t *testing.T) {
	if _, err := shell(t, "echo no luck; exit 3").Says(t.Context(), "ready"); err == nil || !strings.Contains(err.Error(), "no luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := shell(t, "exec sleep 60").Says(ctx, "ready"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A program that does not heed SIGTERM is killed, and so is its child.
func TestStop(t *testing.T) {
	p := shell(t, `trap '' TERM; sleep 60 & echo "child $!"; wait; wait`)
	m, err := p.Says(t.Context(), `child (\d+)`)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(10 * time.Millisecond)
	<-p.Done()
	child, _ := strconv.Atoi(m[1])
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // whoever adopted it buries it
		if err := syscall.Kill(child, 0); err != nil {
			return
		}
		if state, err := process.State(child); err != nil || state == 'Z' {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the child is still there")
		}
	}
}

func TestUsage(t *testing.T) {
	p := shell(t, `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 60`)
	if _, err := p.Says(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	cpu, err := p.CPU()
	if err != nil || cpu < 10*time.Millisecond || cpu > 30*time.Second {
		t.Errorf("got %v, %v", cpu, err)
	}
	rss, peak, err := p.Memory()
	if err != nil || rss < 100<<10 || peak < rss || peak > 1<<30 {
		t.Errorf("got %d, %d, %v", rss, peak, err)
	}
	p.Stop(time.Second)
	if _, err := p.CPU(); err == nil {
		t.Error("an ended process has used nothing")
	}
}
