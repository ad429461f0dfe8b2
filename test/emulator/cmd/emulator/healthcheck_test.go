package main

import (
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	check := func(args ...string) (int, string) {
		errOut := newOutput()
		return run(t.Context(), append([]string{"healthcheck"}, args...), newOutput(), errOut), errOut.String()
	}
	out, _, stop := start(t)
	mqtt := out.wait(t, `MQTT +(\S+)`)[1]
	https := out.wait(t, `HTTPS +(\S+)`)[1]
	for _, addr := range []string{mqtt, https} {
		if code, said := check("--addr", addr); code != exitOK || said != "" {
			t.Errorf("%s: exit code %d, %q", addr, code, said)
		}
	}
	stop()
	if code, said := check("--addr", mqtt); code != exitFailed || !strings.HasPrefix(said, "emulator: no emulator answers at "+mqtt) {
		t.Errorf("stopped: exit code %d, %q", code, said)
	}
	if code, said := check("pump-7"); code != exitUsage || !strings.Contains(said, "--help") {
		t.Errorf("an argument: exit code %d, %q", code, said)
	}
}
