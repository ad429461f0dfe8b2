package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"websocketbridge/relay/wire"
	"websocketbridge/test/testlog"
)

// A relay is scraped, and its spans go to a collector: the last ones as it ends.
func TestServeObserved(t *testing.T) {
	var spans testlog.Buffer
	to := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &in)
		}
		if err != nil {
			t.Error(err)
		}
		io.WriteString(&spans, in.String())
	}))
	defer to.Close()
	r := start(t, map[string]string{
		"RELAY_PLAIN": "true", "RELAY_PPROF": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": to.URL, "OTEL_SERVICE_NAME": "relay-of-the-test",
	})
	r.log.wait(t, `msg="bridges are traced"`)
	r.device("pump-7")
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	r.echo(s)
	status, text := r.get(wire.PathMetrics)
	for _, want := range []string{
		"relay_bridges{state=\"open\"} 1", "relay_bridges_opened_total 1", "relay_signals_total{result=\"accepted\"} 1",
		"relay_reload_faulty{setting=\"RELAY_API_KEYS\"} 0", "relay_ready 1", "relay_build_info{", "go_goroutines",
	} {
		if status != http.StatusOK || !strings.Contains(text, "\n"+want) {
			t.Errorf("%d, no %s in\n%s", status, want, text)
		}
	}
	put(t, os.Getenv("RELAY_API_KEYS"), "garbage")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.log.wait(t, `msg="not reloaded`)
	if _, text := r.get(wire.PathMetrics); !strings.Contains(text, "\nrelay_reload_faulty{setting=\"RELAY_API_KEYS\"} 1\n") {
		t.Errorf("a faulty file does not show:\n%s", text)
	}
	if status, _ := r.get(wire.PathPProf + "goroutine"); status != http.StatusOK {
		t.Errorf("pprof answers %d", status)
	}
	s.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait()
	for _, want := range []string{"relay-of-the-test", "connect", "admit", "signal", "dial back", "accept", "join", "bridge.to_device_bytes", s.BridgeID} {
		if !strings.Contains(spans.String(), want) {
			t.Errorf("no span has %s:\n%s", want, spans.String())
		}
	}
	for _, secret := range []string{r.key, "bridgeToken"} {
		if strings.Contains(spans.String()+text, secret) {
			t.Error("a secret is told")
		}
	}
}

// A collector that is away is told of, and nothing waits for it.
func TestServeWithoutCollector(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": gone.URL, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=hunter2", "OTEL_EXPORTER_OTLP_TIMEOUT": "100"})
	r.device("pump-7")
	s, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	r.echo(s)
	s.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait()
	r.log.wait(t, `msg="(the last )?traces are lost" reason=`)
	if strings.Contains(r.log.String(), "hunter2") {
		t.Error("a secret is told")
	}
}

// What is wrong with the variables of OpenTelemetry is told with all that is wrong.
func TestTraceFaults(t *testing.T) {
	setenv(t, map[string]string{"RELAY_AUTH": "nobody", "OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_ENDPOINT": "collector"})
	_, _, err := load(io.Discard)
	for _, want := range []string{"RELAY_AUTH: ", `OTEL_TRACES_EXPORTER: "console" is neither otlp nor none`} {
		if err == nil || !strings.Contains(err.Error(), "\n  "+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
