package e2e_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"websocketbridge/deviceagent"
	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/relay/trace"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
)

// One trace goes from the requester through the relay and the device, also where agent
// and relay have a signature to check, and the agent's log has it.
func TestTrace(t *testing.T) {
	everywhere(t, func(t *testing.T, nodes int) {
		const id = "4bf92f3577b34da6a3ce929d0e0e4736"
		to := tracetest.NewInMemoryExporter()
		key := signaler.NewSigningKey()
		w := newWorld(t, options{
			nodes: nodes,
			relay: func(c *relay.Config) { c.Tracer, c.Signer = trace.New(to), signaler.NewSigner(key) },
			agent: func(c *deviceagent.Config) { c.SignalKeys = []signaler.PublicKey{key.Public()} },
		})
		cfg := w.client
		cfg.Header = http.Header{wire.HeaderTraceParent: {"00-" + id + "-00f067aa0ba902b7-01"}}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s, err := client.Dial(ctx, cfg, client.Request{Device: device, Targets: []string{"echo"}})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		want := []string{"accept", "admit", "bridge", "connect", "dial back", "join", "signal"}
		until(t, "all spans have ended", func() bool {
			var got []string
			for _, span := range to.GetSpans() {
				if span.SpanContext.TraceID().String() != id {
					t.Fatalf("%s is of another trace", span.Name)
				}
				if span.Name != "forward" { // only if the device came to another node
					got = append(got, span.Name)
				}
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		})
		parents := map[string]string{}
		spans := to.GetSpans()
		for _, span := range spans {
			for _, p := range spans {
				if p.SpanContext.SpanID() == span.Parent.SpanID() {
					parents[span.Name] = p.Name
				}
			}
		}
		if parents["accept"] != "signal" { // by way of the agent
			t.Errorf("the device's part is one of %q", parents["accept"])
		}
		if n := strings.Count(w.log.String(), "trace="+id); n != 2 { // the owner's log and the agent's
			t.Errorf("%d lines have the trace", n)
		}
	})
}
