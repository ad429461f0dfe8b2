package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"websocketbridge/relay/calm"
	"websocketbridge/relay/metrics"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/trace"
	"websocketbridge/relay/wire"
)

// lastSpans is for spans that were not handed over yet when the node ends.
const lastSpans = 3 * time.Second

// openTraces makes the tracer that the environment names. A collector that is away is no
// fault: bridges do not wait for it, and the log says that spans are lost.
func openTraces(log *slog.Logger) (*trace.Tracer, error) {
	lost := &calm.Log{To: log, Lines: 1, Per: time.Minute}
	t, err := trace.FromEnv(context.Background(), settings.Version(), func(err error) {
		lost.Log(slog.LevelWarn, "traces", "traces are lost", "reason", said(err))
	})
	if err == nil {
		log.Info("bridges are traced")
	}
	return t, err
}

func closeTraces(t *trace.Tracer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		log.Warn("the last traces are lost", "reason", said(err))
	}
}

// said is what a collector, or what is in its place, has answered, fit for the log.
func said(err error) string {
	text := strings.Join(strings.Fields(wire.Redact(err.Error())), " ")
	return strings.ToValidUTF8(text[:min(len(text), 300)], "")
}

// countReloads has the metrics say whether what is in files is in force.
func countReloads(to *metrics.Node, all []*watched) {
	for _, w := range all {
		setting := w.settings[0]
		to.Watch(setting)
		w.seen = func(result string) { to.Reloaded(setting, result) }
	}
}
