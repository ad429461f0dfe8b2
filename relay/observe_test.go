package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"websocketbridge/relay"
	"websocketbridge/relay/audit"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/trace"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
)

// wantMetrics looks for whole lines in what Prometheus is told once nothing moves.
func (n *node) wantMetrics(lines ...string) {
	n.t.Helper()
	synctest.Wait()
	status, text := n.ask(http.MethodGet, wire.PathMetrics)
	if status != http.StatusOK {
		n.t.Fatalf("%d %s", status, text)
	}
	for _, line := range lines {
		if strings.Contains("\n"+text, "\n"+line+"\n") {
			continue
		}
		name, _, _ := strings.Cut(line, " ")
		var there []string
		for l := range strings.Lines(text) {
			if strings.HasPrefix(l, name+" ") {
				there = append(there, strings.TrimSpace(l))
			}
		}
		n.t.Errorf("not so: %s; but %q", line, there)
	}
}

// A bridge is counted at each step of its way, and its bytes while it is open.
func TestMetricsOfABridge(t *testing.T) {
	slow := func(c *relay.Config) {
		hub := c.Signaler
		c.Signaler = signalFunc(func(ctx context.Context, s *signaler.Signal) error {
			time.Sleep(2 * time.Second)
			return hub.Signal(ctx, s)
		})
	}
	inBubble(t, slow, func(n *node) {
		n.wantMetrics(`relay_ready 1`, `relay_bridges{state="open"} 0`, `relay_bridges_limit 10000`, `relay_bridges_waiting_limit 1000`)
		done := n.connecting(context.Background(), "deviceId=pump-7")
		signal := <-n.signals
		n.wantMetrics(`relay_bridges{state="waiting"} 1`, `relay_requests 1`, `relay_signals_total{result="accepted"} 1`, `relay_handshake_seconds_count 0`)
		time.Sleep(3 * time.Second)
		device, err := n.accept(signal)
		if err != nil {
			t.Fatal(err)
		}
		requester := (<-done).conn
		n.wantMetrics(`relay_bridges{state="waiting"} 0`, `relay_bridges{state="open"} 1`, `relay_bridges_opened_total 1`, `relay_requests 0`,
			`relay_handshake_seconds_sum 5`, `relay_handshake_stage_seconds_sum{stage="admit"} 0`, `relay_handshake_stage_seconds_sum{stage="signal"} 2`,
			`relay_handshake_stage_seconds_sum{stage="dial_back"} 3`, `relay_handshake_stage_seconds_sum{stage="join"} 0`)
		echo(t, requester, device)
		echo(t, requester, device)
		echo(t, device, requester)
		n.wantMetrics(`relay_bytes_total{direction="to_device"} 10`, `relay_bytes_total{direction="to_requester"} 5`, `relay_bridges_stalled{side="device"} 0`)
		go device.CloseWith(4000, "")
		wantClose(t, requester, 4000, "")
		n.wantMetrics(`relay_bridges{state="open"} 0`, `relay_bridges_closed_total{by="device",code="done"} 1`,
			`relay_bytes_total{direction="to_device"} 10`, `relay_bytes_total{direction="to_requester"} 5`)
	})
}

// A device that came before its hub had answered did not let anybody wait.
func TestMetricsOfAnEarlyDevice(t *testing.T) {
	early := func(c *relay.Config) {
		hub := c.Signaler
		c.Signaler = signalFunc(func(ctx context.Context, s *signaler.Signal) error {
			hub.Signal(ctx, s)
			<-ctx.Done()
			return fmt.Errorf("hub: %w", context.Cause(ctx))
		})
	}
	inBubble(t, early, func(n *node) {
		requester, device := n.open("deviceId=pump-7")
		time.Sleep(time.Minute)
		n.wantMetrics(`relay_handshake_stage_seconds_sum{stage="dial_back"} 0`, `relay_handshake_stage_seconds_count{stage="dial_back"} 1`,
			`relay_handshake_stage_seconds_count{stage="signal"} 0`, `relay_signals_total{result="abandoned"} 1`, `relay_signals_total{result="accepted"} 0`)
		go device.Close()
		wantClose(t, requester, wire.CloseNormal, "")
	})
}

// Each answer of a hub is of one class.
func TestMetricsOfSignals(t *testing.T) {
	for result, err := range map[string]error{
		"device_not_found": signaler.ErrDeviceNotFound, "device_offline": signaler.ErrDeviceOffline, "refused": &signaler.RefusedError{},
		"throttled": &signaler.ThrottledError{RetryAfter: time.Second}, "unauthorized": signaler.ErrUnauthorized, "not_supported": signaler.ErrNotSupported,
		"too_big": signaler.ErrTooBig, "timed_out": signaler.ErrTimedOut, "unavailable": signaler.ErrUnavailable, "failed": errors.New("a bug"),
	} {
		inBubble(t, func(c *relay.Config) {
			c.Signaler = signalFunc(func(context.Context, *signaler.Signal) error { return fmt.Errorf("hub: %w", err) })
		}, func(n *node) {
			if _, err := n.connect(context.Background(), "deviceId=pump-7"); err == nil {
				t.Error("connected")
			}
			n.wantMetrics(`relay_signals_total{result="`+result+`"} 1`, `relay_signals_total{result="accepted"} 0`, `relay_bridges_opened_total 0`)
		})
	}
}

func TestMetricsOfAPanic(t *testing.T) {
	inBubble(t, func(c *relay.Config) {
		c.Signaler = signalFunc(func(context.Context, *signaler.Signal) error { panic("a bug") })
	}, func(n *node) {
		if _, err := n.connect(context.Background(), "deviceId=pump-7"); err == nil {
			t.Error("connected")
		}
		n.wantMetrics(`relay_panics_total 1`, `relay_signals_total{result="failed"} 1`, `relay_refused_total{code="internal",path="/bridge/connect"} 1`)
	})
}

func TestMetricsOfRefusals(t *testing.T) {
	nobody := func(c *relay.Config) {
		hash, err := auth.HashKey(auth.NewAPIKey())
		if err != nil {
			t.Fatal(err)
		}
		keys, err := auth.ParseKeys("ops " + hash)
		if err != nil {
			t.Fatal(err)
		}
		c.Auth = keys
	}
	inBubble(t, nobody, func(n *node) {
		n.connect(context.Background(), "deviceId=pump-7")
		n.connect(context.Background(), "")
		for _, path := range []string{wire.PathCanI, wire.PathGetSignedURL, wire.PathConnectSigned} {
			resp, err := n.httpClient().Get("http://relay.test" + path + "?deviceId=pump-7&expirationUtc=2000-01-01T01:00:00Z")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		n.wantMetrics(`relay_refused_total{code="unauthenticated",path="/bridge/connect"} 1`, `relay_refused_total{code="bad_request",path="/bridge/connect"} 1`,
			`relay_refused_total{code="unauthenticated",path="/bridge/canI"} 1`, `relay_refused_total{code="unauthenticated",path="/bridge/getSignedUrl"} 1`,
			`relay_refused_total{code="bad_request",path="/bridge/connectSigned"} 1`, `relay_bridges_opened_total 0`)
	})
}

func TestMetricsOfTokens(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		done := n.connecting(context.Background(), "deviceId=pump-7")
		signal := <-n.signals
		bad := *signal
		try := func(url string) {
			bad.AcceptURL = url
			if _, err := n.accept(&bad); err == nil {
				t.Error("taken")
			}
		}
		try(signal.AcceptURL[:len(signal.AcceptURL)-4])
		last := map[bool]string{true: "A", false: "B"}[signal.AcceptURL[len(signal.AcceptURL)-9] == 'B']
		try(signal.AcceptURL[:len(signal.AcceptURL)-9] + last + signal.AcceptURL[len(signal.AcceptURL)-8:])
		try("ws://relay.test/front/bridge/accept?bridgeToken=x")
		device, err := n.accept(signal)
		if err != nil {
			t.Fatal(err)
		}
		requester := (<-done).conn
		try(signal.AcceptURL)
		time.Sleep(time.Minute)
		try(signal.AcceptURL)
		n.wantMetrics(`relay_token_rejects_total{reason="malformed"} 1`, `relay_token_rejects_total{reason="forged"} 2`,
			`relay_token_rejects_total{reason="gone"} 1`, `relay_token_rejects_total{reason="expired"} 1`,
			`relay_refused_total{code="bridge_gone",path="/bridge/accept"} 2`)
		go device.Close()
		wantClose(t, requester, wire.CloseNormal, "")
	})
}

// A limit that refuses is counted; the others are there as zero.
func TestMetricsOfLimits(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.MaxPerDevice = 1 }, func(n *node) {
		requester, device := n.open("deviceId=pump-7")
		n.connect(context.Background(), "deviceId=pump-7")
		n.wantMetrics(`relay_limit_refusals_total{limit="device_bridges"} 1`, `relay_limit_refusals_total{limit="address_pending"} 0`,
			`relay_refused_total{code="limit_reached",path="/bridge/connect"} 1`)
		go device.Close()
		wantClose(t, requester, wire.CloseNormal, "")
	})
}

// A side that does not read shows after a second, and no longer once it reads.
func TestMetricsOfAStall(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, device := n.open("deviceId=pump-7")
		sent := make(chan error, 1)
		go func() {
			_, err := requester.Write(make([]byte, 8<<20))
			sent <- err
		}()
		time.Sleep(3 * time.Second)
		n.wantMetrics(`relay_bridges_stalled{side="device"} 1`, `relay_bridges_stalled{side="requester"} 0`)
		if _, err := io.ReadFull(device, make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		n.wantMetrics(`relay_bridges_stalled{side="device"} 0`, fmt.Sprintf(`relay_bytes_total{direction="to_device"} %v`, float64(8<<20)))
		go device.Close()
		wantClose(t, requester, wire.CloseNormal, "")
	})
}

func TestMetricsOfADrain(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Drain = time.Hour }, func(n *node) {
		requester, device := n.open("deviceId=pump-7")
		atRequester := reading(requester)
		go io.Copy(io.Discard, device)
		n.wantMetrics(`relay_draining 0`, `relay_drain_deadline_timestamp_seconds 0`, `relay_drain_moves_total 0`)
		n.stop()
		synctest.Wait()
		deadline := time.Now().Add(time.Hour)
		n.wantMetrics(`relay_draining 1`, `relay_ready 0`, `relay_drain_moves_total 1`, fmt.Sprintf(`relay_drain_deadline_timestamp_seconds %v`, float64(deadline.Unix())))
		if err := <-atRequester; err == nil || time.Until(deadline).Abs() > time.Minute {
			t.Errorf("%v at %v", err, time.Now())
		}
		n.wantMetrics(`relay_bridges_closed_total{by="relay",code="draining"} 1`)
	})
}

func TestMetricsOfForwards(t *testing.T) {
	inCity(t, 2, nil, func(c *city) {
		requester, device := c.open(0, 1, "deviceId=pump-7")
		c.nodes[1].wantMetrics(`relay_forwards 1`, `relay_forwards_out_total{result="joined"} 1`, `relay_forwards_in_total 0`, `relay_bridges_opened_total 0`)
		c.nodes[0].wantMetrics(`relay_forwards 0`, `relay_forwards_out_total{result="joined"} 0`, `relay_forwards_in_total 1`, `relay_bridges_opened_total 1`)
		go device.Close()
		wantClose(t, requester, wire.CloseNormal, "")
		done := c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		signal := <-c.nodes[0].signals
		if status := c.nodes[1].reject(signal, `{"code":"busy"}`); status != http.StatusNoContent {
			t.Errorf("got %d", status)
		}
		<-done
		c.nodes[1].wantMetrics(`relay_forwards 0`, `relay_forwards_out_total{result="answered"} 1`, `relay_forwards_out_total{result="failed"} 0`)
		c.places[0].set(down)
		done = c.nodes[0].connecting(context.Background(), "deviceId=pump-7")
		if _, err := c.nodes[1].accept(<-c.nodes[0].signals); err == nil {
			t.Error("joined")
		}
		<-done
		c.nodes[1].wantMetrics(`relay_forwards_out_total{result="failed"} 1`, `relay_refused_total{code="owner_lost",path="/bridge/accept"} 1`)
	})
}

// fullLog is an audit log that cannot be written.
type fullLog struct{}

func (fullLog) Record(context.Context, audit.Record) error { return audit.ErrNotKept }
func (fullLog) Err() error                                 { return audit.ErrNotKept }
func (fullLog) Stats() audit.Stats {
	return audit.Stats{Written: 3, Lost: 2, Failures: 1, Failing: true}
}

func TestMetricsOfAudit(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Audit = fullLog{} }, func(n *node) {
		n.connect(context.Background(), "deviceId=pump-7")
		n.wantMetrics(`relay_audit_failing 1`, `relay_audit_lines_total{result="lost"} 2`, `relay_audit_lines_total{result="written"} 3`, `relay_audit_failures_total 1`,
			`relay_ready 0`, `relay_refused_total{code="audit_failed",path="/bridge/connect"} 1`)
	})
}

// pprof is there only for who asked for it.
func TestPProf(t *testing.T) {
	for _, on := range []bool{false, true} {
		inBubble(t, func(c *relay.Config) { c.PProf = on }, func(n *node) {
			for _, path := range []string{wire.PathPProf, wire.PathPProf + "heap", wire.PathPProf + "symbol"} {
				if status, _ := n.ask(http.MethodGet, path); (status == http.StatusOK) != on {
					t.Errorf("with %v: %s answers %d", on, path, status)
				}
			}
			resp, err := n.httpClient().Get("http://relay.test" + wire.PathPProf)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("the public listener answers %d", resp.StatusCode)
			}
		})
	}
}

const (
	theirTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	theirParent = "00-" + theirTrace + "-00f067aa0ba902b7-01"
	otherParent = "00-11111111111111111111111111111111-2222222222222222-01"
)

// traced makes a bridge whose requester and device send traceparents; device gets the
// signal's own if it is empty.
func traced(c *city, owner, at int, requester, device string) (signal *signaler.Signal) {
	c.t.Helper()
	header := func(parent string) http.Header { return http.Header{wire.HeaderTraceParent: {parent}} }
	done := make(chan dialed, 1)
	go func() {
		conn, err := c.nodes[owner].dialer().DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?deviceId=pump-7&requestData=nobodys", header(requester))
		done <- dialed{conn, err}
	}()
	signal = <-c.nodes[owner].signals
	if device == "" {
		device = signal.TraceParent
	}
	d, err := c.nodes[at].dialer().DialWebSocket(context.Background(), signal.AcceptURL, header(device))
	if err != nil {
		c.t.Fatal(err)
	}
	if d.Header().Get(wire.HeaderTraceParent) != "" {
		c.t.Error("the device is told a span of the relay")
	}
	got := <-done
	if got.err != nil {
		c.t.Fatal(got.err)
	}
	echo(c.t, got.conn, d)
	go d.Close()
	wantClose(c.t, got.conn, wire.CloseNormal, "")
	synctest.Wait()
	return signal
}

// tree is the spans by their parents' names, one a line.
func tree(spans tracetest.SpanStubs) string {
	names := map[string]string{"0000000000000000": "-", "00f067aa0ba902b7": "requester", "2222222222222222": "other"}
	for _, s := range spans {
		names[s.SpanContext.SpanID().String()] = s.Name
	}
	var lines []string
	for _, s := range spans {
		lines = append(lines, names[s.Parent.SpanID().String()]+" > "+s.Name)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestTraces(t *testing.T) {
	const inner = "connect > admit\nconnect > bridge\nconnect > dial back\nconnect > join\nconnect > signal\n"
	for _, tt := range []struct {
		name, requester, device string
		at                      int
		want                    string
	}{
		{"nobody else traces", "", "", 0, "- > connect\n" + inner + "signal > accept"},
		{"requester and device do", theirParent, "", 0, inner + "requester > connect\nsignal > accept"},
		{"the requester's is none", "00-x", "", 0, "- > connect\n" + inner + "signal > accept"},
		{"the device's is of another trace", theirParent, otherParent, 0, "connect > accept\n" + inner + "requester > connect"},
		{"the device's is none", theirParent, "x", 0, "connect > accept\n" + inner + "requester > connect"},
		{"by way of another node", theirParent, "", 1, "accept > forward\n" + inner + "requester > connect\nsignal > accept"},
		{"by way of another node, another trace", theirParent, otherParent, 1, "accept > forward\nconnect > accept\n" + inner + "requester > connect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := tracetest.NewInMemoryExporter()
			inCity(t, 2, func(_ int, c *relay.Config) { c.Tracer = trace.New(to) }, func(c *city) {
				signal := traced(c, 0, tt.at, tt.requester, tt.device)
				spans := to.GetSpans()
				if got := tree(spans); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
				id := spans[0].SpanContext.TraceID().String()
				for _, s := range spans {
					if s.SpanContext.TraceID().String() != id || s.EndTime.Before(s.StartTime) {
						t.Errorf("%s is of another trace, or ended before it began", s.Name)
					}
					for _, a := range s.Attributes {
						if text := a.Value.Emit(); strings.Contains(text, "bridgeToken") || strings.Contains(text, "nobodys") || strings.Contains(text, "://") {
							t.Errorf("%s tells %s: %s", s.Name, a.Key, text)
						}
					}
				}
				if wire.TraceID(signal.TraceParent) != id || wire.TraceID(tt.requester) != "" && id != theirTrace {
					t.Errorf("the trace is %s, the signal's %s", id, signal.TraceParent)
				}
				wantLog(t, c.nodes[0], "trace="+id)
			})
		})
	}
}

// Who does not trace passes on what came.
func TestTraceParentPassesThrough(t *testing.T) {
	for in, want := range map[string]string{theirParent: theirParent, "": "", "00-x": "", theirParent + "\tx": ""} {
		inCity(t, 2, nil, func(c *city) {
			if got := traced(c, 0, 1, in, otherParent).TraceParent; got != want {
				t.Errorf("%q: the signal has %q", in, got)
			}
		})
	}
}

// Strangers make no spans. Who is known, and refused, does.
func TestTracesOfRefusals(t *testing.T) {
	to := tracetest.NewInMemoryExporter()
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.ParseKeys("ops " + hash + " devices=pump-*")
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, func(c *relay.Config) { c.Auth, c.Tracer = keys, trace.New(to) }, func(n *node) {
		dial := func(query, key string) {
			d := ws.Dialer{Dial: n.ln.Dial, Proxy: netfault.NoProxy}
			h := http.Header{wire.HeaderTraceParent: {theirParent}, wire.HeaderAPIKey: {key}}
			if _, err := d.DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?"+query, h); err == nil {
				t.Error("connected")
			}
		}
		dial("deviceId=pump-7", auth.NewAPIKey())
		dial("", key)
		if spans := to.GetSpans(); len(spans) != 0 {
			t.Errorf("strangers make spans:\n%s", tree(spans))
		}
		dial("deviceId=mill", key)
		synctest.Wait()
		if got := tree(to.GetSpans()); got != "connect > admit\nrequester > connect" {
			t.Errorf("got\n%s", got)
		}
		to.Reset()
		dial("deviceId=pump-7", key) // nobody comes
		synctest.Wait()
		spans := to.GetSpans()
		if got := tree(spans); got != "connect > admit\nconnect > dial back\nconnect > signal\nrequester > connect" {
			t.Errorf("got\n%s", got)
		}
		for _, s := range spans {
			late := s.Name == "connect" || s.Name == "dial back"
			if late != (s.Status.Description == string(wire.DialBackTimeout)) || late && s.EndTime.Sub(s.StartTime) != relay.DefaultDialBack {
				t.Errorf("%s: %+v, %v", s.Name, s.Status, s.EndTime.Sub(s.StartTime))
			}
		}
	})
}
