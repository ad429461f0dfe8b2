package signaler_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"

	"websocketbridge/signaler"
)

// TestNothingPrintsSecrets prints signals and deliveries in every way that a log
// line may.
func TestNothingPrintsSecrets(t *testing.T) {
	s := full()
	s.RequestData = "req-secret"
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d := signaler.Delivery{Payload: payload, Answers: true}
	type Held struct { // exported fields: see the comment in redact.go
		S signaler.Signal
		P *signaler.Signal
		D signaler.Delivery
	}
	held := Held{*s, s, d}
	for _, v := range []any{
		s, *s, d, &d, &s, held, &held, []*signaler.Signal{s}, []signaler.Signal{*s},
		map[string]any{"x": *s, "y": d}, struct{ any }{*s}.any,
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%08.3f", "%10v", "%T", "%!"} {
			clean(t, verb, fmt.Sprintf(verb, v))
		}
		clean(t, "Errorf", fmt.Errorf("signal: %v", v).Error())
		clean(t, "Println", fmt.Sprintln(v))
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		clean(t, "json.Marshal", string(b))

		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			l := slog.New(h)
			l.Info("signal", "signal", v)
			l.With("signal", v).WithGroup("g").Info("signal", slog.Group("in", slog.Any("signal", v)))
		}
		log.New(&out, "", 0).Print(v)
		clean(t, "log", out.String())
	}
}

func clean(t *testing.T, how, text string) {
	t.Helper()
	for _, secret := range []string{"t0k3n", "bridgeToken", "req-secret", "bridge/accept", "bridge/reject"} {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint([]byte(secret)), "[]")} {
			if strings.Contains(text, form) {
				t.Errorf("%s prints a secret: %s", how, text)
				return
			}
		}
	}
}

func TestStrings(t *testing.T) {
	s := full()
	const want = `signal{bridge "b-7f3a" device "pump-7" target "ssh" relay "relay.example"}`
	for _, got := range []string{s.String(), fmt.Sprint(s), fmt.Sprint(*s), fmt.Sprintf("%+v", s), s.LogValue().String()} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got, want := fmt.Sprint(signaler.Delivery{Payload: []byte("{}")}), "delivery{2 bytes, answers false}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	bad := signaler.Signal{AcceptURL: "wss://%zz", BridgeID: "b\nlevel=ERROR"}
	if got, want := bad.String(), `signal{bridge "b\nlevel=ERROR" device "" target "" relay "?"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var none *signaler.Signal
	if got, want := fmt.Sprint(none), "<nil>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
