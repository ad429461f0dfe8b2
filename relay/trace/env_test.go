package trace_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"websocketbridge/relay/trace"
)

// setenv sets NAME=value words, and nothing else that begins with OTEL_.
func setenv(t *testing.T, env string) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
			os.Unsetenv(name)
			t.Cleanup(func() { os.Setenv(name, value) })
		}
	}
	for _, pair := range strings.Fields(env) {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv("OTEL_"+name, value)
	}
}

func TestWanted(t *testing.T) {
	for _, tt := range []struct {
		env    string
		on     bool
		faults []string
	}{
		{"", false, nil},
		{"SERVICE_NAME=relay TRACES_SAMPLER=always_on EXPORTER_OTLP_HEADERS=a=b", false, nil},
		{"EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", true, nil},
		{"EXPORTER_OTLP_TRACES_ENDPOINT=https://c.example/v1/traces", true, nil},
		{"EXPORTER_OTLP_ENDPOINT= TRACES_EXPORTER=", false, nil},
		{"TRACES_EXPORTER=otlp", true, nil},
		{"TRACES_EXPORTER=none EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", false, nil},
		{"SDK_DISABLED=true EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", false, nil},
		{"SDK_DISABLED=false EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 EXPORTER_OTLP_PROTOCOL=http/protobuf", true, nil},
		{"TRACES_EXPORTER=console", false, []string{`OTEL_TRACES_EXPORTER: "console" is neither`}},
		{"EXPORTER_OTLP_ENDPOINT=c.example:4318", true, []string{"OTEL_EXPORTER_OTLP_ENDPOINT: is no URL"}},
		{"EXPORTER_OTLP_ENDPOINT=http://u:hunter2@c.example", true, []string{"OTEL_EXPORTER_OTLP_ENDPOINT: has a user"}},
		{"EXPORTER_OTLP_ENDPOINT=http://c EXPORTER_OTLP_PROTOCOL=grpc", true, []string{`OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not http/protobuf`}},
		{"EXPORTER_OTLP_ENDPOINT=http://c EXPORTER_OTLP_CERTIFICATE=/none.pem", true, []string{"OTEL_EXPORTER_OTLP_CERTIFICATE: stat /none.pem"}},
		{"EXPORTER_OTLP_ENDPOINT=http://c TRACES_SAMPLER=sometimes", true, []string{`OTEL_TRACES_SAMPLER: "sometimes" is not one of`}},
		{"EXPORTER_OTLP_ENDPOINT=http://c TRACES_SAMPLER=traceidratio TRACES_SAMPLER_ARG=0.1", true, nil},
		{"EXPORTER_OTLP_ENDPOINT=http://c TRACES_SAMPLER=traceidratio TRACES_SAMPLER_ARG=10%", true, []string{"OTEL_TRACES_SAMPLER_ARG: is no number"}},
		{"EXPORTER_OTLP_ENDPOINT=c EXPORTER_OTLP_TRACES_PROTOCOL=http/json", true, []string{"OTEL_EXPORTER_OTLP_ENDPOINT: ", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "}},
	} {
		t.Run(tt.env, func(t *testing.T) {
			setenv(t, tt.env)
			on, faults := trace.Wanted()
			if on != tt.on || len(faults) != len(tt.faults) {
				t.Fatalf("got %v, %v", on, faults)
			}
			for i, f := range faults {
				if !strings.HasPrefix(f.Error(), tt.faults[i]) || strings.Contains(f.Error(), "hunter2") {
					t.Errorf("got %v, want %s", f, tt.faults[i])
				}
			}
		})
	}
}

// What goes to a collector, and what is heard of one that does not take it.
func TestFromEnv(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 1)
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &in)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Key") != "hunter2" {
			t.Errorf("%s: %v", r.URL, err)
		}
		if w.WriteHeader(status); status == http.StatusOK {
			got <- &in
		}
	}))
	defer srv.Close()
	setenv(t, "EXPORTER_OTLP_ENDPOINT="+srv.URL+" EXPORTER_OTLP_HEADERS=x-key=hunter2 RESOURCE_ATTRIBUTES=deployment.environment=test")
	var failed []error
	tracer, err := trace.FromEnv(t.Context(), "v1.2.3", func(err error) { failed = append(failed, err) })
	if err != nil {
		t.Fatal(err)
	}
	s := tracer.Connect("", time.Now())
	s.Set("device", "pump-7")
	s.Set("target", "")
	s.SetBytes("to_device", 5)
	s.End()
	if err := tracer.Close(t.Context()); err != nil || len(failed) > 0 {
		t.Fatal(err, failed)
	}
	in := (<-got).ResourceSpans
	if len(in) != 1 || len(in[0].ScopeSpans) != 1 || len(in[0].ScopeSpans[0].Spans) != 1 {
		t.Fatalf("got %v", in)
	}
	text := in[0].String()
	for _, want := range []string{"service.name", "relay", "v1.2.3", "deployment.environment", "bridge.device", "pump-7", "bridge.to_device_bytes"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(text, "bridge.target") {
		t.Error("an empty fact")
	}

	status = http.StatusForbidden
	if tracer, err = trace.FromEnv(t.Context(), "v1.2.3", func(err error) { failed = append(failed, err) }); err != nil {
		t.Fatal(err)
	}
	tracer.Connect("", time.Now()).End()
	err = tracer.Close(t.Context())
	if failed = append(failed, err); !slices.ContainsFunc(failed, func(err error) bool { return err != nil && strings.Contains(err.Error(), "403") }) {
		t.Errorf("nothing was said of the 403: %v", failed)
	}
	for _, err := range failed {
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is told: %v", err)
		}
	}
}

// No tracer and no span do nothing, and nothing is allocated for them.
func TestNone(t *testing.T) {
	var none *trace.Tracer
	if got := testing.AllocsPerRun(100, func() {
		s := none.Connect("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", time.Time{})
		s.Set("id", "x")
		s.SetBytes("to_device", 1)
		s.Child("admit", trace.Inside, time.Time{}).End()
		s.Accept("", time.Time{}).Fail("gone")
		none.Forward("", time.Time{}).EndAt(time.Time{})
		if s.TraceParent() != "" || s.TraceID() != "" {
			t.Error("there is one")
		}
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
	if err := none.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
