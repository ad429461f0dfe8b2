package metrics_test

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/metrics"
	"websocketbridge/relay/wire"
)

func scrape(t *testing.T, n *metrics.Node) string {
	t.Helper()
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// want looks for whole lines.
func want(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, " ")
			name, _, _ = strings.Cut(name, "{")
			t.Errorf("no line %s; there are\n%s", line, strings.Join(regexp.MustCompile(`(?m)^`+name+`\b.*$`).FindAllString(text, -1), "\n"))
		}
	}
}

func TestCounts(t *testing.T) {
	sample := metrics.Sample{
		Waiting: 1, Joining: 2, Open: 3, ToDevice: 1 << 40, ToRequester: 5, DevicesStalled: 1, Forwards: 6, MaxBridges: 100, MaxWaiting: 10,
		Requests: 7, Pending: 8, Ready: true, Draining: true, DrainDeadline: time.UnixMilli(1767323045500), Limits: map[string]uint64{"bridges": 9},
		Audit: metrics.Audit{Written: 10, Lost: 11, Suppressed: 12, Failures: 13, Failing: true},
	}
	n := metrics.New("v1.2.3", func() metrics.Sample { return sample })
	n.Watch("RELAY_POLICY")
	n.Watch("RELAY_API_KEYS")
	n.Opened(metrics.Handshake{Total: 2 * time.Second, Admit: time.Millisecond, Join: time.Second})
	n.Closed(wire.PeerLost, "device")
	n.Refused(wire.PathAccept, wire.BridgeGone)
	n.Signalled(metrics.SignalAccepted, time.Minute)
	n.Signalled(metrics.SignalThrottled, time.Minute)
	n.BadToken(metrics.TokenForged)
	n.ForwardedOut(metrics.ForwardJoined)
	n.ForwardedIn()
	n.Moved()
	n.Panicked()
	n.Reloaded("RELAY_POLICY", metrics.ReloadFailed)
	n.Reloaded("RELAY_API_KEYS", metrics.ReloadFailed)
	n.Reloaded("RELAY_API_KEYS", metrics.ReloadRestored)
	text := scrape(t, n)
	want(t, text,
		`relay_bridges{state="waiting"} 1`, `relay_bridges{state="joining"} 2`, `relay_bridges{state="open"} 3`,
		`relay_bridges_limit 100`, `relay_bridges_waiting_limit 10`,
		`relay_bridges_stalled{side="device"} 1`, `relay_bridges_stalled{side="requester"} 0`,
		`relay_bytes_total{direction="to_device"} 1.099511627776e+12`, `relay_bytes_total{direction="to_requester"} 5`,
		`relay_forwards 6`, `relay_requests 7`, `relay_pending_connections 8`, `relay_limit_refusals_total{limit="bridges"} 9`,
		`relay_ready 1`, `relay_draining 1`, `relay_drain_deadline_timestamp_seconds 1.7673230455e+09`,
		`relay_audit_lines_total{result="written"} 10`, `relay_audit_lines_total{result="lost"} 11`, `relay_audit_lines_total{result="suppressed"} 12`,
		`relay_audit_failures_total 13`, `relay_audit_failing 1`,
		`relay_bridges_opened_total 1`, `relay_bridges_closed_total{by="device",code="peer_lost"} 1`, `relay_bridges_closed_total{by="relay",code="killed"} 0`,
		`relay_refused_total{code="bridge_gone",path="/bridge/accept"} 1`, `relay_refused_total{code="forbidden",path="/bridge/connect"} 0`,
		`relay_signals_total{result="accepted"} 1`, `relay_signals_total{result="throttled"} 1`, `relay_signals_total{result="unavailable"} 0`,
		`relay_token_rejects_total{reason="forged"} 1`, `relay_forwards_out_total{result="joined"} 1`, `relay_forwards_in_total 1`,
		`relay_drain_moves_total 1`, `relay_panics_total 1`,
		`relay_handshake_seconds_count 1`, `relay_handshake_seconds_sum 2`, `relay_handshake_seconds_bucket{le="1"} 0`, `relay_handshake_seconds_bucket{le="2.5"} 1`,
		`relay_handshake_stage_seconds_sum{stage="signal"} 60`, `relay_handshake_stage_seconds_count{stage="signal"} 1`,
		`relay_handshake_stage_seconds_sum{stage="join"} 1`, `relay_handshake_stage_seconds_bucket{stage="dial_back",le="0.005"} 1`,
		`relay_reloads_total{result="failed",setting="RELAY_POLICY"} 1`, `relay_reloads_total{result="reloaded",setting="RELAY_POLICY"} 0`,
		`relay_reload_faulty{setting="RELAY_POLICY"} 1`, `relay_reload_faulty{setting="RELAY_API_KEYS"} 0`,
	)
	for _, name := range []string{"relay_build_info{", "go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
	if !strings.Contains(text, `version="v1.2.3"`) {
		t.Error("no version")
	}
}

// Nothing draining has no deadline, and two nodes fit in one process.
func TestNodes(t *testing.T) {
	a := metrics.New("a", func() metrics.Sample { return metrics.Sample{Open: 1} })
	b := metrics.New("b", func() metrics.Sample { return metrics.Sample{Open: 2} })
	a.Panicked()
	want(t, scrape(t, a), `relay_drain_deadline_timestamp_seconds 0`, `relay_bridges{state="open"} 1`, `relay_panics_total 1`)
	want(t, scrape(t, b), `relay_draining 0`, `relay_bridges{state="open"} 2`, `relay_panics_total 0`)
}

// What is counted once for each bridge costs nothing to speak of.
func TestAllocs(t *testing.T) {
	n := metrics.New("v", func() metrics.Sample { return metrics.Sample{} })
	if got := testing.AllocsPerRun(100, func() {
		n.Signalled(metrics.SignalAccepted, time.Second)
		n.Opened(metrics.Handshake{})
		n.Closed(wire.Done, "requester")
	}); got > 0 {
		t.Errorf("a bridge allocates %v times", got)
	}
}

func BenchmarkBridge(b *testing.B) {
	n := metrics.New("v", func() metrics.Sample { return metrics.Sample{} })
	b.ReportAllocs()
	for b.Loop() {
		n.Signalled(metrics.SignalAccepted, time.Second)
		n.Opened(metrics.Handshake{})
		n.Closed(wire.Done, "requester")
	}
}
