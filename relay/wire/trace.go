package wire

import "strings"

// TraceID returns the trace ID in a traceparent, 32 digits of hex, or nothing if it is
// none: of version 00 (W3C Trace Context section 3.2), and neither ID all zeros. What a
// later version means is not known here, so it begins no trace and continues none.
func TraceID(traceparent string) string {
	parts := strings.Split(traceparent, "-")
	if len(parts) != 4 || parts[0] != "00" {
		return ""
	}
	for i, size := range []int{2, 32, 16, 2} {
		if len(parts[i]) != size || strings.Trim(parts[i], "0123456789abcdef") != "" {
			return ""
		}
	}
	if strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return ""
	}
	return parts[1]
}
