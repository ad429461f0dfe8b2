package fake_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

// sent signals so many bridges, b1 first, and wants them taken.
func sent(t *testing.T, hub *fake.Hub, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		want(t, hub.Signal(t.Context(), signal("pump-7", fmt.Sprint("b", i))), nil)
	}
}

func TestLose(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults fake.Faults
		want   []string
	}{
		{"none", fake.Faults{}, []string{"b1", "b2", "b3", "b4", "b5", "b6"}},
		{"all", fake.Faults{LoseAll: true}, nil},
		{"every third", fake.Faults{LoseEvery: 3}, []string{"b1", "b2", "b4", "b5"}},
		{"the next two", fake.Faults{LoseNext: 2}, []string{"b3", "b4", "b5", "b6"}},
		{"the next two and every third", fake.Faults{LoseNext: 2, LoseEvery: 3}, []string{"b4", "b5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := fake.New(fake.Config{Mode: fake.Message})
				set(t, hub, tt.faults)
				d := listen(t, hub.Source("pump-7"), nil)
				sent(t, hub, 1, 6)
				received(t, d, tt.want...)
				if got := hub.Faults().LoseNext; got != 0 {
					t.Errorf("LoseNext is still %d", got)
				}
			})
		})
	}
}

func TestLoseMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{AnswerTimeout: 3 * time.Second})
		d := listen(t, hub.Source("pump-7"), nil)
		set(t, hub, fake.Faults{LoseNext: 1})
		start := time.Now()
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), signaler.ErrTimedOut)
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("after %v", got)
		}
		want(t, hub.Signal(t.Context(), signal("pump-7", "b2")), nil)
		received(t, d, "b2")
	})
}

func TestDelay(t *testing.T) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		synctest.Test(t, func(t *testing.T) {
			hub := fake.New(fake.Config{Mode: mode})
			d := listen(t, hub.Source("pump-7"), nil)
			set(t, hub, fake.Faults{Delay: 2 * time.Second})
			first := asked(t, hub, signal("pump-7", "b1"))
			time.Sleep(time.Second)
			set(t, hub, fake.Faults{})
			want(t, hub.Signal(t.Context(), signal("pump-7", "b2")), nil) // overtakes
			received(t, d, "b2")
			time.Sleep(999 * time.Millisecond)
			received(t, d, "b2")
			time.Sleep(2 * time.Millisecond)
			received(t, d, "b2", "b1")
			want(t, <-first, nil)
		})
	}
}

func TestDuplicate(t *testing.T) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		synctest.Test(t, func(t *testing.T) {
			hub := fake.New(fake.Config{Mode: mode})
			n := 0
			d := listen(t, hub.Source("pump-7"), func(context.Context, string) *signaler.Refusal {
				if n++; n == 1 {
					return nil
				}
				return &signaler.Refusal{Code: "replay"} // as a careful agent answers
			})
			set(t, hub, fake.Faults{Duplicate: 2})
			want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), nil)
			received(t, d, "b1", "b1", "b1")
		})
	}
}

func TestReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Mode: fake.Message})
		d := listen(t, hub.Source("pump-7"), nil)
		set(t, hub, fake.Faults{Reorder: true})
		sent(t, hub, 1, 5)
		received(t, d, "b2", "b1", "b4", "b3")
		set(t, hub, fake.Faults{})
		received(t, d, "b2", "b1", "b4", "b3", "b5")
	})
}

func TestReorderMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{})
		d := listen(t, hub.Source("pump-7"), nil)
		set(t, hub, fake.Faults{Reorder: true, Duplicate: 1})
		first := asked(t, hub, signal("pump-7", "b1"))
		received(t, d)
		want(t, hub.Signal(t.Context(), signal("pump-7", "b2")), nil)
		want(t, <-first, nil)
		received(t, d, "b2", "b2", "b1", "b1")
		alone := asked(t, hub, signal("pump-7", "b3"))
		want(t, <-alone, signaler.ErrTimedOut)
		set(t, hub, fake.Faults{})
		want(t, hub.Signal(t.Context(), signal("pump-7", "b4")), nil)
		received(t, d, "b2", "b2", "b1", "b1", "b3", "b4") // b3's duplicate comes late; its caller has gone
	})
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := fake.New(fake.Config{Devices: []string{"pump-8"}})
		d := listen(t, hub.Source("pump-7"), nil)
		no := signaler.Refusal{Code: "busy", Message: "two bridges are open"}
		set(t, hub, fake.Faults{Refuse: &no})
		err := hub.Signal(t.Context(), signal("pump-7", "b1"))
		if e, ok := errors.AsType[*signaler.RefusedError](err); !ok || e.Refusal != no {
			t.Errorf("got %v", err)
		}
		want(t, hub.Signal(t.Context(), signal("pump-8", "b1")), signaler.ErrDeviceOffline)
		received(t, d)
	})
}

func TestHang(t *testing.T) {
	for _, mode := range []fake.Mode{fake.Method, fake.Message} {
		synctest.Test(t, func(t *testing.T) {
			hub := fake.New(fake.Config{Mode: mode, AnswerTimeout: time.Hour})
			d := listen(t, hub.Source("pump-7"), nil)
			set(t, hub, fake.Faults{Hang: true})
			left := errors.New("requester left")
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, left)
			defer cancel()
			want(t, hub.Signal(ctx, signal("pump-7", "b1")), left)
			want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), signaler.ErrTimedOut)
			received(t, d)
		})
	}
}

func TestErrors(t *testing.T) {
	hub := fake.New(fake.Config{})
	for name, sentinel := range map[fake.FaultError]error{
		"not_found": signaler.ErrDeviceNotFound, "offline": signaler.ErrDeviceOffline, "timeout": signaler.ErrTimedOut,
		"throttled": signaler.ErrThrottled, "unauthorized": signaler.ErrUnauthorized,
		"not_supported": signaler.ErrNotSupported, "unavailable": signaler.ErrUnavailable,
	} {
		set(t, hub, fake.Faults{Error: name})
		want(t, hub.Signal(t.Context(), signal("pump-7", "b1")), sentinel)
		if f, ok := fake.FaultFor(sentinel); !ok || f.Error != name {
			t.Errorf("FaultFor(%q) is %v", sentinel, f)
		}
	}
	for _, err := range []error{nil, signaler.ErrRefused, signaler.ErrTakenOver} {
		if f, ok := fake.FaultFor(err); ok {
			t.Errorf("FaultFor(%v) is %v", err, f)
		}
	}
}

func TestSetFaultsRefuses(t *testing.T) {
	no := &signaler.Refusal{Code: "busy"}
	for _, tt := range []struct {
		mode   fake.Mode
		faults fake.Faults
		want   string
	}{
		{fake.Method, fake.Faults{Error: "ofline"}, `error "ofline" is not known`},
		{fake.Method, fake.Faults{LoseNext: -1}, "negative"},
		{fake.Method, fake.Faults{Delay: -1}, "negative"},
		{fake.Method, fake.Faults{Duplicate: 101}, "100 are allowed"},
		{fake.Method, fake.Faults{Error: fake.Offline, RetryAfter: 1}, "retryAfter goes with"},
		{fake.Message, fake.Faults{Refuse: no}, "method mode"},
	} {
		hub := fake.New(fake.Config{Mode: tt.mode})
		if err := hub.SetFaults(tt.faults); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.faults, err, tt.want)
		}
		if got := hub.Faults(); !reflect.DeepEqual(got, fake.Faults{}) {
			t.Errorf("%+v took effect", got)
		}
	}
}

// allFaults is in doc.go too.
const allFaults = `{"error":"throttled","retryAfter":"3s","hang":true,"refuse":{"code":"busy","message":"…"},` +
	`"loseAll":true,"loseEvery":3,"loseNext":2,"delay":"250ms","duplicate":1,"reorder":true}`

func TestFaultsJSON(t *testing.T) {
	all := fake.Faults{
		Error: fake.Throttled, RetryAfter: 3 * time.Second, Hang: true, Refuse: &signaler.Refusal{Code: "busy", Message: "…"},
		LoseAll: true, LoseEvery: 3, LoseNext: 2, Delay: 250 * time.Millisecond, Duplicate: 1, Reorder: true,
	}
	for _, tt := range []struct {
		faults fake.Faults
		json   string
	}{{all, allFaults}, {fake.Faults{}, "{}"}} {
		if b, err := json.Marshal(tt.faults); err != nil || string(b) != tt.json {
			t.Errorf("got %s, %v", b, err)
		}
		var got fake.Faults
		if err := json.Unmarshal([]byte(tt.json), &got); err != nil || !reflect.DeepEqual(got, tt.faults) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	for _, in := range []string{`{"loseall":1}`, `{"lose":true}`, `{"delay":"soon"}`, `{"delay":250}`, `[]`, `{"refuse":{"why":"x"}}`} {
		if err := json.Unmarshal([]byte(in), new(fake.Faults)); err == nil {
			t.Errorf("took %s", in)
		}
	}
}
