//go:build clients

package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"websocketbridge/test/emulator"
	"websocketbridge/test/process/processtest"
)

// TestNeighbour is why the agent has an identity of its own: a program with the
// official SDK holds the device's, and works on it without a pause, while our
// agent next to it, as a module, bridges and bridges. Neither may cost the other
// its connection, and nothing may get lost.
func TestNeighbour(t *testing.T) {
	length := 20 * time.Second
	if s := os.Getenv("SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("SOAK: %v", err)
		}
	}
	const id, module = "pump-7", "bridge"
	h := newHub(t, quick())
	identities := h.device(t, id, module)
	relay := startRelay(t, h, "method", "RELAY_HUB_MODULE="+module)
	start(t, processtest.BareEnv(
		"AGENT_SIGNALS=hub", "AGENT_HUB_CONNECTION_STRING="+identities[1], "AGENT_HUB_ADDR="+h.MQTTAddr(), "AGENT_CA_FILE="+h.caFile,
		"AGENT_RELAY_HOSTS="+hubAddress, "AGENT_TARGETS=echo", "AGENT_LOG_FORMAT=json",
	), "", filepath.Join(bin, "deviceagent"))
	neighbour := startScript(t, h, "neighbour.mjs", "DEVICE="+identities[0], "SERVICE="+h.ServiceConnectionString("service"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.WaitListening(ctx, id, module, emulator.ListenMethods); err != nil {
		t.Fatal(err)
	}

	// Three at a time, one after another.
	stop := time.Now().Add(length)
	var (
		mu      sync.Mutex // guards the two below
		bridges int
		errs    []error
		wg      sync.WaitGroup
	)
	for worker := range 3 {
		wg.Go(func() {
			random := rand.NewChaCha8([32]byte{byte(worker)})
			for time.Now().Before(stop) {
				err := bridgeOnce(relay, id, random)
				mu.Lock()
				bridges++
				if err != nil {
					errs = append(errs, fmt.Errorf("bridge %d: %w", bridges, err))
				}
				tooMany := len(errs) > 10
				mu.Unlock()
				if tooMany {
					return
				}
			}
		})
	}
	wg.Wait()
	neighbour.CloseInput()
	done := neighbour.wait(t, "done", 1)
	for _, w := range neighbour.heard("wrong") {
		t.Errorf("the neighbour: %s: %s", w.What, w.Error)
	}
	if err := errors.Join(errs...); err != nil {
		t.Errorf("of %d bridges: %v", bridges, err)
	}
	t.Logf("%d bridges in %v, next to %d messages, %d methods and %d events", bridges, length, done.Messages, done.Methods, done.Events)
	if least := int(length / time.Second); bridges < least || done.Messages < least || done.Methods < least || done.Events < least {
		t.Errorf("less than one of each a second")
	}
	s := h.Stats()
	for _, who := range []string{id, id + "/" + module} {
		if n := s.Connects[who]; n != 1 {
			t.Errorf("%s connected %d times", who, n)
		}
	}
	if s.Takeovers != 0 || s.ConnectsRefused != 0 || s.MessagesRequeued != 0 || s.AnswersLate != 0 {
		t.Errorf("the hub counts %+v", s)
	}
	if s.Events != done.Events {
		t.Errorf("the hub has %d events, the neighbour sent %d", s.Events, done.Events)
	}
}

// TestRival is what happens where somebody gives the agent the device's own
// identity after all. The SDK comes back each time it is evicted, for ever; so the
// agent has to be the one that stops, and to say why.
func TestRival(t *testing.T) {
	const id = "pump-7"
	h := newHub(t, quick())
	cs := h.device(t, id)[0]
	d := startScript(t, h, "device.mjs", "DEVICE="+cs, "TRANSPORT=Mqtt")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	agent := exec.CommandContext(ctx, filepath.Join(bin, "deviceagent"))
	agent.Env = processtest.BareEnv("AGENT_SIGNALS=hub", "AGENT_HUB_CONNECTION_STRING="+cs, "AGENT_HUB_ADDR="+h.MQTTAddr(), "AGENT_CA_FILE="+h.caFile,
		"AGENT_RELAY_HOSTS="+hubAddress, "AGENT_TARGETS=echo")
	out, err := agent.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || ctx.Err() != nil {
		t.Errorf("the agent: %v, want it to give up", err)
	}
	if !strings.Contains(string(out), "another client connects with the same identity") {
		t.Errorf("the agent does not say why it gave up:\n%s", out)
	}
	if h.Stats().Takeovers == 0 {
		t.Error("there was no takeover")
	}

	// The SDK's program has its connection back, and works.
	wantListening(t, h, id, "method")
	b, err := connect(startRelay(t, h, "method"), id, url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.CloseNow()
	if err := echo(b, websocket.MessageText, []byte("still here")); err != nil {
		t.Error(err)
	}
	d.MustRun()
}

// bridgeOnce has some bytes echoed by the agent, in raw mode: it makes one stream
// of them.
func bridgeOnce(relay, device string, random io.Reader) error {
	c, err := connect(relay, device, url.Values{"target": {"echo"}})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sent := make([]byte, 20_000)
	io.ReadFull(random, sent) // never fails
	if err := c.Write(ctx, websocket.MessageBinary, sent); err != nil {
		return err
	}
	var got []byte
	for len(got) < len(sent) {
		_, part, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("after %d bytes of %d: %w", len(got), len(sent), err)
		}
		got = append(got, part...)
	}
	if string(got) != string(sent) {
		return errors.New("other bytes came back")
	}
	return c.Close(websocket.StatusNormalClosure, "")
}
