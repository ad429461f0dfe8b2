// Package trace makes the spans of a bridge, for OpenTelemetry. It is the only one that
// knows it: whoever uses a Tracer or a Span that is nil makes none, at no cost.
//
// # The spans of a bridge
//
//	connect              from the requester's request to the open bridge, or its refusal
//	├─ admit             credentials, policy, limits
//	├─ signal            until the hub has taken it; carried to the device as traceparent
//	│  └─ accept         the device's request, as the device's traceparent has it
//	├─ dial back         the wait for the device, from the signal on
//	├─ join              from the device's request until both 101s are out
//	├─ forward           at the node that passed the device's request on, if there is one
//	└─ bridge            the life of the open bridge: why it ended, and bytes each way
//
// connect is part of the trace that the requester names by the header traceparent, if
// there is one (W3C Trace Context, version 00; tracestate is not carried). Strangers make
// no spans: there are none before the credentials have been found good. The device's
// traceparent counts only if its trace is the bridge's own, so a device cannot write into
// other traces.
//
// While nothing is traced here, a requester's traceparent goes to the device as it is.
//
// # What a span holds
//
// bridge.id, bridge.device, bridge.target, bridge.principal, bridge.code, bridge.via,
// bridge.by, bridge.to_device_bytes, bridge.to_requester_bytes. Never a token, a key, a URL,
// request data or payload.
package trace

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// A Tracer begins spans; nil begins none. It is safe for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// scope is the name of the instrumentation.
const scope = "websocketbridge/relay"

func newTracer(o ...sdk.TracerProviderOption) *Tracer {
	p := sdk.NewTracerProvider(o...)
	return &Tracer{p, p.Tracer(scope)}
}

// New returns a Tracer that hands each span to exporter as it ends, which takes as long as
// that does: for tests. FromEnv is for use.
func New(exporter sdk.SpanExporter) *Tracer { return newTracer(sdk.WithSyncer(exporter)) }

// Close hands over what was not handed over yet, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Connect begins the span of a requester's request. parent is the traceparent that came
// with it; one that is none begins a trace.
func (t *Tracer) Connect(parent string, began time.Time) *Span {
	if t == nil {
		return nil
	}
	return t.begin("connect", read(parent), began, trace.SpanKindServer)
}

// Forward begins the span of a request that was passed on to another node, which has
// answered with its traceparent.
func (t *Tracer) Forward(parent string, began time.Time) *Span {
	if t == nil {
		return nil
	}
	of := read(parent)
	if !of.IsValid() {
		return nil
	}
	return t.begin("forward", of, began, trace.SpanKindServer)
}

func (t *Tracer) begin(name string, parent trace.SpanContext, at time.Time, kind trace.SpanKind) *Span {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithSpanKind(kind))
	return &Span{t, span}
}

// traceparent reads and writes that header.
var traceparent propagation.TraceContext

const header = "traceparent"

func read(parent string) trace.SpanContext {
	ctx := traceparent.Extract(context.Background(), propagation.MapCarrier{header: parent})
	return trace.SpanContextFromContext(ctx)
}

// A Span is one part of a trace; nil is none. It is safe for concurrent use.
type Span struct {
	tracer *Tracer
	span   trace.Span
}

// Kinds of a Child.
const (
	Inside = trace.SpanKindInternal
	Asking = trace.SpanKindClient // somebody else, who may have spans of their own
)

// Child begins a part of s.
func (s *Span) Child(name string, kind trace.SpanKind, at time.Time) *Span {
	if s == nil {
		return nil
	}
	ctx := trace.ContextWithSpan(context.Background(), s.span)
	_, span := s.tracer.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithSpanKind(kind))
	return &Span{s.tracer, span}
}

// Accept begins the span of a device's request, which came with a traceparent: its parent
// if that is of s's trace. Otherwise it is a part of s.
func (s *Span) Accept(parent string, at time.Time) *Span {
	if s == nil {
		return nil
	}
	if of := read(parent); of.IsValid() && of.TraceID() == s.span.SpanContext().TraceID() {
		return s.tracer.begin("accept", of, at, trace.SpanKindServer)
	}
	return s.Child("accept", trace.SpanKindServer, at)
}

// TraceParent is the span as others are told of it; empty if there is none.
func (s *Span) TraceParent() string {
	if s == nil {
		return ""
	}
	carrier := propagation.MapCarrier{}
	traceparent.Inject(trace.ContextWithSpan(context.Background(), s.span), carrier)
	return carrier[header]
}

// TraceID is what to look for; empty if there is none.
func (s *Span) TraceID() string {
	if s == nil {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// Set adds a fact. An empty one is not added.
func (s *Span) Set(name, value string) {
	if s != nil && value != "" {
		s.span.SetAttributes(attribute.String("bridge."+name, value))
	}
}

// SetBytes adds a number of bytes.
func (s *Span) SetBytes(name string, n int64) {
	if s != nil {
		s.span.SetAttributes(attribute.Int64("bridge."+name+"_bytes", n))
	}
}

// End ends it well.
func (s *Span) End() { s.EndAt(time.Now()) }

// EndAt ends it well, at a moment in the past.
func (s *Span) EndAt(at time.Time) {
	if s != nil {
		s.span.End(trace.WithTimestamp(at))
	}
}

// Fail ends it with a code of package wire.
func (s *Span) Fail(code string) {
	if s != nil {
		s.Set("code", code)
		s.span.SetStatus(codes.Error, code)
		s.End()
	}
}
