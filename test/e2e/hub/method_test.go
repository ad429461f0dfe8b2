package hub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"websocketbridge/signaler"
	"websocketbridge/signaler/entra"
	"websocketbridge/signaler/method"
	"websocketbridge/signaler/signalertest"
	"websocketbridge/test/emulator"
)

// The method signaler passes the suite, with agents on the device and in a module, and
// with both forms of errors.
func TestMethodConformance(t *testing.T) {
	t.Parallel()
	for _, module := range []string{"", "bridge"} {
		for _, form := range []string{"old", "new"} {
			t.Run(fmt.Sprintf("module %q/errors %s", module, form), func(t *testing.T) {
				signalertest.Run(t, func(t *testing.T) signalertest.Harness {
					r := newMethodRig(t, emulator.Config{Faults: emulator.Faults{ErrorForm: form}})
					return r.harness(r.method(t, func(c *method.Config) { c.Module = module }), module)
				})
			})
		}
	}
}

// What the hub knows of a device is what the signaler says.
func TestMethodWhoIsThere(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"old", "new"} {
		r := newMethodRig(t, emulator.Config{Faults: emulator.Faults{ErrorForm: form}, Devices: []emulator.Device{
			{ID: "bare"}, {ID: "off", Modules: []emulator.Module{{ID: "bridge"}}}, {ID: "disabled", Disabled: true, Modules: []emulator.Module{{ID: "bridge"}}},
			{ID: "-.+%_#*?!(),:=@$'", Modules: []emulator.Module{{ID: "bridge"}}},
		}})
		device, module := r.method(t, nil), r.method(t, func(c *method.Config) { c.Module = "bridge" })
		r.agent(t, "-.+%_#*?!(),:=@$'", "bridge", acceptAll)
		for _, tt := range []struct {
			s        signaler.Signaler
			id       string
			want     error
			noModule bool
		}{
			{module, "-.+%_#*?!(),:=@$'", nil, false},
			{device, "-.+%_#*?!(),:=@$'", signaler.ErrDeviceOffline, false},
			{module, "bare", signaler.ErrDeviceNotFound, true},
			{device, "bare", signaler.ErrDeviceOffline, false},
			{module, "off", signaler.ErrDeviceOffline, false},
			{device, "disabled", signaler.ErrDeviceNotFound, false},
			{module, "none", signaler.ErrDeviceNotFound, false},
			{device, "none", signaler.ErrDeviceNotFound, false},
		} {
			err := tt.s.Signal(t.Context(), aSignal(tt.id))
			if !errors.Is(err, tt.want) || errors.Is(err, method.ErrModuleNotFound) != tt.noModule {
				t.Errorf("%s, errors %s: got %v, want %v", tt.id, form, err, tt.want)
			}
		}
	}
}

// The hub can be told to wait for a device that comes back, and one that goes during
// the call is asked again.
func TestMethodReconnect(t *testing.T) {
	t.Parallel()
	r := newMethodRig(t, emulator.Config{Devices: []emulator.Device{{ID: "pump-7"}}})
	s := r.method(t, func(c *method.Config) { c.ConnectTimeout = townPatience })
	ctx, cancel := context.WithTimeout(t.Context(), townPatience)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- s.Signal(ctx, aSignal("pump-7")) }()
	thinks, gone := make(chan struct{}), make(chan struct{})
	var told atomic.Int64
	r.agent(t, "pump-7", "", func(context.Context, signaler.Delivery) *signaler.Refusal {
		if told.Add(1) == 2 { // the connection is lost while it thinks
			close(thinks)
			<-gone
		}
		return nil
	})
	if err := <-result; err != nil {
		t.Errorf("a device that comes back: %v", err)
	}
	go func() { result <- s.Signal(ctx, aSignal("pump-7")) }()
	select {
	case <-thinks:
	case <-ctx.Done():
		close(gone)
		t.Fatal("the device was not told")
	}
	r.hub.Disconnect("pump-7", "")
	close(gone)
	if err := <-result; err != nil {
		t.Errorf("a device that goes during the call: %v", err)
	}
}

// 300 signals at once to a hub that allows 40 a second: without a rate of its own the
// relay is refused; with it, it waits its turn, or is told by itself when to come back.
func TestMethodRate(t *testing.T) {
	const n = 300
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own rate %t", own), func(t *testing.T) {
			burst := 5 * time.Second // a machine that halts for a moment bunches up what the relay had spread
			if !own {
				burst = -1
			}
			r := newMethodRig(t, emulator.Config{
				Devices: []emulator.Device{{ID: "pump-7"}}, Throttle: true, ThrottleBurst: burst, ThrottleQueue: -1, RetryAfter: 2 * time.Second,
			})
			r.agent(t, "pump-7", "", acceptAll)
			s := r.method(t, func(c *method.Config) {
				if own {
					var err error
					if c.Rate, c.Burst, err = method.RateFor("S1", 1); err != nil {
						t.Fatal(err)
					}
				}
			})
			var took, refused atomic.Int64
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					err := s.Signal(t.Context(), aSignal("pump-7"))
					e, ok := errors.AsType[*signaler.ThrottledError](err)
					switch {
					case err == nil:
						took.Add(1)
					case ok && e.RetryAfter > 0 && e.RetryAfter < 10*time.Second:
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if throttled := r.hub.Stats().Throttled; (throttled > 0) == own || took.Load() == 0 || refused.Load() == 0 {
				t.Errorf("%d taken, %d refused, %d of them by the hub", took.Load(), refused.Load(), throttled)
			}
		})
	}
}

// The hub's own faults, one by one.
func TestMethodFaults(t *testing.T) {
	t.Parallel()
	r := newMethodRig(t, emulator.Config{Devices: []emulator.Device{{ID: "pump-7"}}})
	r.agent(t, "pump-7", "", acceptAll)
	s := r.method(t, nil)
	once := emulator.Trigger{Times: 1}
	for _, tt := range []struct {
		fault emulator.AnswerFault
		want  error
	}{
		{emulator.AnswerFault{Garbage: true}, signaler.ErrUnavailable},
		{emulator.AnswerFault{Error: "unavailable", Trigger: once}, nil},
		{emulator.AnswerFault{Error: "unavailable"}, signaler.ErrUnavailable},
		{emulator.AnswerFault{Error: "notOnline", Trigger: once}, nil},
		{emulator.AnswerFault{Error: "notOnline"}, signaler.ErrDeviceOffline},
		{emulator.AnswerFault{Error: "internal"}, signaler.ErrUnavailable},
		{emulator.AnswerFault{Error: "quota"}, signaler.ErrThrottled},
	} {
		r.set(t, emulator.Faults{Method: &tt.fault})
		if err := s.Signal(t.Context(), aSignal("pump-7")); !errors.Is(err, tt.want) {
			t.Errorf("%+v: got %v", tt.fault, err)
		}
	}
}

// aToken is an azcore.TokenCredential of one token.
type aToken string

func (s aToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(s), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// Both ways take a token of Entra ID, and both say so when the hub does not.
func TestEntra(t *testing.T) {
	t.Parallel()
	for jwt, want := range map[string]error{"good.jwt.token": nil, "bad.jwt.token": signaler.ErrUnauthorized} {
		r := newMethodRig(t, emulator.Config{Devices: []emulator.Device{{ID: "pump-7"}}, BearerTokens: []string{"good.jwt.token"}})
		r.agent(t, "pump-7", "", acceptAll)
		r.cred = entra.FromTokenCredential(aToken(jwt))
		for name, s := range map[string]signaler.Signaler{"method": r.method(t, nil), "c2d": r.message(t)} {
			ctx, cancel := context.WithTimeout(t.Context(), townPatience)
			if err := s.Signal(ctx, aSignal("pump-7")); !errors.Is(err, want) {
				t.Errorf("%s with %s: got %v", name, jwt, err)
			}
			cancel()
		}
	}
}
