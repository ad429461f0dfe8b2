package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/handoff"
	"websocketbridge/deviceagent/lent"
	"websocketbridge/relay/client"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
	"websocketbridge/signaler/auto"
	"websocketbridge/test/emulator"
)

// handsOver makes the rig's program one that knows the bridge only as JSON to hand
// over, as one in any language would.
func (r *lentRig) handsOver(to handoff.Address) {
	r.t.Helper()
	give := func(signal []byte) *signaler.Refusal {
		no, err := handoff.Send(r.ctx(), to, "", signal)
		if err != nil {
			no = &signaler.Refusal{Code: "agent_unreachable", Message: err.Error()}
		}
		return no
	}
	err := r.client.RegisterMethod(context.Background(), "Bridge", func(members map[string]any) (int, map[string]any, error) {
		signal, err := json.Marshal(members)
		if err != nil {
			return 0, nil, err
		}
		if no := give(signal); no != nil {
			return 409, map[string]any{"code": no.Code, "message": no.Message}, nil
		}
		return 200, nil, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	sub, err := r.client.SubscribeEvents(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	var reads sync.WaitGroup
	reads.Go(func() {
		for m := range sub.C() {
			if _, ok := m.Properties["bridge-signal"]; ok {
				give(m.Payload)
			}
		}
	})
	r.t.Cleanup(func() {
		r.client.UnsubscribeEvents(sub)
		reads.Wait()
	})
}

// handoffAgent runs an agent that has echo and listens at a Unix socket, which is
// where the second result says also when it does not run.
func (r *lentRig) handoffAgent() (start func() (stop func()), at handoff.Address) {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "handoff") // t.TempDir may be too long for a socket
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { os.RemoveAll(dir) })
	at = handoff.Address{Kind: handoff.Unix, At: filepath.Join(dir, "s")}
	source, err := handoff.New(handoff.Config{Address: at, Logger: r.logger()})
	if err != nil {
		r.t.Fatal(err)
	}
	targets, err := deviceagent.ParseTargets([]string{"echo"})
	if err != nil {
		r.t.Fatal(err)
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID: lentDevice, Source: source, RelayHosts: []string{"127.0.0.1"}, Targets: targets, MaxBridges: 50, Logger: r.logger(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() func() {
		stop := r.run("agent", agent.Run)
		if _, err := source.Wait(r.ctx()); err != nil {
			r.t.Fatal(err)
		}
		return stop
	}, at
}

// From the requester to a target, by way of a program that has the connection.
func TestHandoffBridge(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, emulator.Config{}, nil)
	start, at := r.handoffAgent()
	r.handsOver(at)
	r.listening()
	both, err := auto.New(auto.Config{Method: r.byMethod, Message: r.byMessage})
	if err != nil {
		t.Fatal(err)
	}
	urls := map[string]string{"message": r.relay(r.byMessage), "method": r.relay(r.byMethod), "auto": r.relay(both)}
	ask := func(way, target string) error {
		sess, err := client.Dial(r.ctx(), client.Config{URL: urls[way]}, client.Request{Device: lentDevice, Targets: []string{target}})
		if err != nil {
			return err
		}
		defer sess.Close()
		st, err := sess.Open(r.ctx(), target)
		if err != nil {
			return err
		}
		defer st.Close()
		return echo(st, "handed over")
	}
	refused := func(way, target, want string) {
		t.Helper()
		var e *client.Error
		if err := ask(way, target); !errors.As(err, &e) || e.Code != wire.DeviceRefused || e.DeviceCode != want {
			t.Errorf("%s: %v, want %s", way, err, want)
		}
	}
	refused("method", "echo", "agent_unreachable")
	for round := range 2 { // the agent comes and goes, the program stays
		stop := start()
		var work sync.WaitGroup
		for way := range urls {
			for range 5 {
				work.Go(func() {
					if err := ask(way, "echo"); err != nil {
						t.Errorf("round %d, %s: %v", round, way, err)
					}
				})
			}
		}
		work.Wait()
		for way := range urls {
			refused(way, "ssh", "target_not_allowed")
		}
		stop()
		refused("method", "echo", "agent_unreachable")
	}
	if s, err := r.client.SubscribeEvents(r.ctx()); err != nil {
		t.Errorf("the program's connection has suffered: %v", err)
	} else {
		r.client.UnsubscribeEvents(s)
	}
}

// Both ways at once make no sense: the method is the program's.
func TestHandoffAndLent(t *testing.T) {
	t.Parallel()
	r := newLentRig(t, emulator.Config{}, nil)
	_, at := r.handoffAgent()
	r.handsOver(at)
	s, err := lent.New(lent.Config{Client: r.client, Guard: r.guard})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(r.ctx(), nil); err == nil || errors.Is(err, lent.ErrDeaf) {
		t.Errorf("got %v", err)
	}
}
