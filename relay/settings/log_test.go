package settings_test

import (
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/settings"
)

func TestLog(t *testing.T) {
	for _, tt := range []struct{ level, format, want, fault string }{
		{"info", "text", `level=INFO msg=seen a=1 took=254ms`, ""},
		{"info", "json", `"level":"INFO","msg":"seen","a":1,"took":"254ms"}`, ""},
		{"error", "text", "", ""},
		{"loud", "text", "", `RELAY_LOG_LEVEL: "loud" is not`},
		{"info", "xml", "", `RELAY_LOG_FORMAT: "xml" is neither`},
	} {
		var b strings.Builder
		log, err := settings.Log{Level: tt.level, Format: tt.format}.New("RELAY", &b)
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%+v: %v", tt, err)
			}
		} else if err != nil {
			t.Errorf("%+v: %v", tt, err)
		}
		log.Info("seen", "a", 1, "took", 254*time.Millisecond) // there is always a logger
		if !strings.Contains(b.String(), tt.want) || tt.want == "" && b.Len() > 0 {
			t.Errorf("%+v: got %q", tt, b.String())
		}
	}
}
