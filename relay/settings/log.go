package settings

import (
	"fmt"
	"io"
	"log/slog"
)

// Log is how a daemon logs; a part of its settings.
type Log struct {
	Level  string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	Format string `envconfig:"LOG_FORMAT" default:"text" desc:"text or json"`
}

// durations makes JSON say 254ms, as text does, and not 254000000.
func durations(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// New makes the logger. Its errors name the variables with their prefix.
func (l Log) New(prefix string, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.New(slog.DiscardHandler), fmt.Errorf("%s_LOG_LEVEL: %q is not debug, info, warn or error", prefix, l.Level)
	}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: durations}
	switch l.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.DiscardHandler), fmt.Errorf("%s_LOG_FORMAT: %q is neither text nor json", prefix, l.Format)
}
