package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/audit"
	"websocketbridge/test/testlog"
)

// disk is a writer that fails, is slow, or blocks, as a test says.
type disk struct {
	mu   sync.Mutex // guards all
	b    bytes.Buffer
	err  error
	cut  int // bytes that are written before err
	hold chan struct{}
}

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		<-hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		n, _ := d.b.Write(p[:min(d.cut, len(p))])
		return n, d.err
	}
	return d.b.Write(p)
}

func (d *disk) fail(err error, cut int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.cut = err, cut
}

// block makes writes wait until the returned func is called.
func (d *disk) block() (release func()) {
	hold := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = hold
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hold = nil
		close(hold)
	}
}

func (d *disk) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b.String()
}

// bubble runs f with a Log that is being written, in synctest's time, and returns what
// was written in the end.
func bubble(t *testing.T, cfg audit.Config, f func(l *audit.Log, d *disk, log *testlog.Buffer)) []parsed {
	t.Helper()
	d, log := new(disk), new(testlog.Buffer)
	synctest.Test(t, func(t *testing.T) {
		cfg.Writer, cfg.Logger = d, slog.New(slog.NewTextHandler(log, nil))
		l, err := audit.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		f(l, d, log)
		stop()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return parse(t, d.text())
}

type parsed struct {
	Seq        uint64
	Event      audit.Event
	BridgeID   string
	Suppressed uint64
}

// parse reads lines, but for those that were cut.
func parse(t *testing.T, text string) (out []parsed) {
	t.Helper()
	for line := range strings.Lines(text) {
		var p parsed
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			if line != "\n" && !strings.HasPrefix(line, `{"v":1`) {
				t.Errorf("line %q: %v", line, err)
			}
			continue
		}
		out = append(out, p)
	}
	return out
}

func opened(i int) audit.Record {
	return audit.Record{Event: audit.Opened, BridgeID: fmt.Sprint(i)}
}

func closedOf(i int) audit.Record {
	return audit.Record{Event: audit.Closed, BridgeID: fmt.Sprint(i), Bytes: &audit.Bytes{}}
}

// Whatever runs at once, numbers count up without gaps and no bridge ends before it
// opened.
func TestOrder(t *testing.T) {
	const bridges = 2000
	got := bubble(t, audit.Config{}, func(l *audit.Log, _ *disk, _ *testlog.Buffer) {
		var wg sync.WaitGroup
		for i := range bridges {
			wg.Go(func() {
				if err := l.Record(context.Background(), opened(i)); err != nil {
					t.Error(err)
				}
				l.Record(context.Background(), closedOf(i))
			})
		}
		wg.Wait()
	})
	if len(got) != 2*bridges {
		t.Fatalf("%d lines", len(got))
	}
	open := map[string]bool{}
	for i, p := range got {
		if p.Seq != uint64(i+1) {
			t.Fatalf("line %d has number %d", i+1, p.Seq)
		}
		if p.Event == audit.Closed && !open[p.BridgeID] {
			t.Errorf("bridge %s ends before it opened", p.BridgeID)
		}
		open[p.BridgeID] = p.Event == audit.Opened
	}
}

var errFull = errors.New("no space left on device")

// Failing closed, what must have a line is told in time that there is none, and all
// else goes on at once; when there is room again it is written, in order.
func TestFullDisk(t *testing.T) {
	for _, cut := range []int{0, 10} {
		var log *testlog.Buffer
		got := bubble(t, audit.Config{}, func(l *audit.Log, d *disk, said *testlog.Buffer) {
			log = said
			if err := l.Record(context.Background(), opened(1)); err != nil {
				t.Fatal(err)
			}
			d.fail(errFull, cut)
			began := time.Now()
			l.Record(context.Background(), closedOf(1))
			if took := time.Since(began); took != 0 {
				t.Errorf("a closed line took %v", took)
			}
			err := l.Record(context.Background(), opened(2))
			if took := time.Since(began); !errors.Is(err, audit.ErrNotKept) || !errors.Is(err, errFull) || took != audit.DefaultWait {
				t.Errorf("%v after %v", err, took)
			}
			if !errors.Is(l.Err(), audit.ErrNotKept) {
				t.Errorf("Err: %v", l.Err())
			}
			ctx, leave := context.WithCancel(context.Background())
			leave()
			if err := l.Record(ctx, audit.Record{Event: audit.SignedURLMade}); !errors.Is(err, audit.ErrNotKept) {
				t.Errorf("who has left got %v", err)
			}
			time.Sleep(time.Minute)
			d.fail(nil, 0)
			time.Sleep(audit.RetryEvery)
			synctest.Wait()
			if err := l.Err(); err != nil {
				t.Errorf("Err: %v", err)
			}
			if err := l.Record(context.Background(), opened(3)); err != nil {
				t.Error(err)
			}
			if s := l.Stats(); s.Written != 3 || s.Lost != 2 || s.Failures < 60 {
				t.Errorf("%+v", s)
			}
		})
		if want := (parsed{2, audit.Closed, "1", 0}); len(got) != 3 || got[1] != want || got[2].Seq != 5 {
			t.Errorf("cut %d: %+v", cut, got)
		}
		if n := strings.Count(log.String(), "cannot be written"); n != 1 || !strings.Contains(log.String(), "lost=2") {
			t.Errorf("said %d times:\n%s", n, log)
		}
	}
}

// A pipe that nobody reads holds nobody up for longer than that either, and what it has
// taken is not written twice.
func TestBlockedPipe(t *testing.T) {
	got := bubble(t, audit.Config{}, func(l *audit.Log, d *disk, _ *testlog.Buffer) {
		release := d.block()
		began := time.Now()
		if err := l.Record(context.Background(), opened(1)); !errors.Is(err, audit.ErrNotKept) || time.Since(began) != audit.DefaultWait {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		l.Record(context.Background(), audit.Record{Event: audit.Refused, BridgeID: "1"})
		time.Sleep(time.Hour)
		if l.Err() == nil {
			t.Error("Err is nil")
		}
		release()
		time.Sleep(audit.RetryEvery)
		if err := l.Record(context.Background(), opened(2)); err != nil {
			t.Error(err)
		}
	})
	if want := []parsed{{1, audit.Opened, "1", 0}, {2, audit.Refused, "1", 0}, {3, audit.Opened, "2", 0}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v", got)
	}
}

// Run ends also if the pipe never does, and says what is lost.
func TestBlockedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		release := d.block()
		l, err := audit.New(audit.Config{Writer: d})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		l.Record(ctx, audit.Record{Event: audit.Stopped})
		stop()
		began := time.Now()
		if err := l.Run(ctx); err == nil || !strings.Contains(err.Error(), "1 lines") {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took > 4*audit.BlockedFor {
			t.Errorf("it took %v", took)
		}
		release()
	})
}

// Failing open, nothing waits; the gap in the numbers shows what is lost.
func TestFailOpen(t *testing.T) {
	got := bubble(t, audit.Config{FailOpen: true}, func(l *audit.Log, d *disk, _ *testlog.Buffer) {
		d.fail(errFull, 0)
		began := time.Now()
		for i := range audit.MaxQueued + 5 {
			if err := l.Record(context.Background(), opened(i)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if took := time.Since(began); took != 0 || l.Err() != nil {
			t.Errorf("took %v, %v", took, l.Err())
		}
		if s := l.Stats(); s.Lost != 5 {
			t.Errorf("%+v", s)
		}
		d.fail(nil, 0)
		time.Sleep(2 * audit.RetryEvery)
		l.Record(context.Background(), opened(0))
	})
	if n := len(got); n != audit.MaxQueued+1 || got[n-1].Seq != audit.MaxQueued+6 {
		t.Errorf("%d lines, the last %+v", n, got[n-1])
	}
}

// Strangers fill neither the disk nor the queue.
func TestStorm(t *testing.T) {
	got := bubble(t, audit.Config{}, func(l *audit.Log, d *disk, _ *testlog.Buffer) {
		d.fail(errFull, 0)
		for range audit.MaxQueued {
			l.Record(context.Background(), audit.Record{Event: audit.Refused})
			l.Record(context.Background(), audit.Record{Event: audit.Refused, Principal: "ops"})
		}
		for range 20 { // and slowly, within the rates
			time.Sleep(10 * time.Second)
			for range 500 {
				l.Record(context.Background(), audit.Record{Event: audit.Refused, Principal: "ops"})
			}
		}
		for i := range audit.MaxQueued / 2 {
			l.Record(context.Background(), closedOf(i))
		}
		d.fail(nil, 0)
		time.Sleep(2 * audit.RetryEvery)
	})
	count := map[audit.Event]int{}
	var suppressed uint64
	for _, p := range got {
		count[p.Event]++
		suppressed += p.Suppressed
	}
	if want := uint64(2*audit.MaxQueued - audit.StrangersBurst - audit.KnownBurst); suppressed != want {
		t.Errorf("%d are told as suppressed, want %d", suppressed, want)
	}
	if count[audit.Refused] != audit.MaxQueued/2 || count[audit.Closed] != audit.MaxQueued/2 {
		t.Errorf("%v", count)
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]audit.Config{
		"nowhere": {}, "twice": {Path: "x", Writer: new(disk)}, "negative": {Writer: new(disk), Wait: -1},
		"no such folder": {Path: t.TempDir() + "/no/such"}, "a folder": {Path: t.TempDir()},
	} {
		if _, err := audit.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
