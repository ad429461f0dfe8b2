package trace

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// A Fault is a variable that is wrong. It quotes no value that may be a secret.
type Fault struct{ Name, Problem string }

func (f Fault) Error() string { return f.Name + ": " + f.Problem }

// Wanted says whether the environment asks for traces, by the names of the OpenTelemetry
// specification: with OTEL_TRACES_EXPORTER=otlp, or an OTLP endpoint and no word against
// it. Faults are what is wrong with those that matter here; the exporter would pass over
// them in silence.
func Wanted() (on bool, faults []Fault) {
	bad := func(name, problem string) { faults = append(faults, Fault{name, problem}) }
	set := func(name string) bool { return os.Getenv(name) != "" } // empty is unset, as the specification has it
	if off, _ := strconv.ParseBool(os.Getenv("OTEL_SDK_DISABLED")); off {
		return false, nil
	}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "otlp":
		on = true
	case "none":
	case "":
		on = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	default:
		bad("OTEL_TRACES_EXPORTER", fmt.Sprintf("%.40q is neither otlp nor none", exporter))
	}
	if !on {
		return false, faults
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if !set(name) {
			continue
		}
		if u, err := url.Parse(os.Getenv(name)); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad(name, "is no URL, as http://127.0.0.1:4318")
		} else if u.User != nil {
			bad(name, "has a user or a password, which is not sent; use OTEL_EXPORTER_OTLP_HEADERS")
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if p := os.Getenv(name); p != "" && p != "http/protobuf" {
			bad(name, fmt.Sprintf("%.40q is not http/protobuf, the only one there is here; a collector takes it on port 4318", p))
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"} {
		if set(name) {
			if _, err := os.Stat(os.Getenv(name)); err != nil {
				bad(name, err.Error())
			}
		}
	}
	samplers := []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	if s := os.Getenv("OTEL_TRACES_SAMPLER"); s != "" && !slices.Contains(samplers, s) {
		bad("OTEL_TRACES_SAMPLER", fmt.Sprintf("%.40q is not one of %s", s, strings.Join(samplers, ", ")))
	} else if strings.HasSuffix(s, "ratio") && set("OTEL_TRACES_SAMPLER_ARG") {
		if r, err := strconv.ParseFloat(os.Getenv("OTEL_TRACES_SAMPLER_ARG"), 64); err != nil || !(r >= 0 && r <= 1) {
			bad("OTEL_TRACES_SAMPLER_ARG", "is no number from 0 to 1")
		}
	}
	return on, faults
}

// FromEnv returns the Tracer that the environment asks for. Whoever calls it closes it.
// failed hears of spans that could not be handed over; it may be called from any
// goroutine, and the error may quote what the collector said.
func FromEnv(ctx context.Context, version string, failed func(error)) (*Tracer, error) {
	var o []otlptracehttp.Option
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		o = append(o, otlptracehttp.WithEndpointURL("http://localhost:4318/v1/traces")) // the specification's default; the exporter's own has TLS
	}
	exporter, err := otlptracehttp.New(ctx, o...)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "relay"), attribute.String("service.version", version)),
		resource.WithFromEnv(), // OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES: they win
		resource.WithTelemetrySDK(), resource.WithHost())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(failed)) // of the process; only a main calls this
	return newTracer(sdk.WithBatcher(exporter), sdk.WithResource(about)), nil
}
