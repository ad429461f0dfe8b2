package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/client"
	"websocketbridge/signaler"
)

// The agent follows what the listed keys have signed, by whichever of them, and nothing else.
func TestServeSigned(t *testing.T) {
	old, now, other := signaler.NewSigningKey(), signaler.NewSigningKey(), signaler.NewSigningKey()
	signer := signaler.NewSigner(old)
	r := newRigWith(t, false, func(c *relay.Config) { c.Signer = signer })
	log := r.agent(t, map[string]string{"AGENT_TARGETS": "echo", "AGENT_SIGNAL_KEYS": old.Public().String() + ", " + now.Public().String()})
	for _, k := range []signaler.SigningKey{old, now, old} {
		signer.Replace(k)
		sess, err := r.dial("echo")
		if err != nil {
			t.Fatal(err)
		}
		sess.Close()
	}
	signer.Replace(other)
	if _, err := r.dial("echo"); !refusedAs(err, "wrong_signature") || !strings.Contains(err.Error(), other.Public().ID()) {
		t.Errorf("got %v", err)
	}
	log.wait(t, `level=WARN msg="signal refused, and nothing of it dialled" reason=wrong_signature`)
	if strings.Contains(log.String(), "principals are limited") {
		t.Error("a warning without a reason")
	}
}

// A relay without a key is refused by a device with one, and a device that limits
// principals without one warns its owner.
func TestServeUnsigned(t *testing.T) {
	r := newRig(t, false)
	r.agent(t, map[string]string{"AGENT_TARGETS": "echo", "AGENT_SIGNAL_KEYS": signaler.NewSigningKey().Public().String()})
	if _, err := r.dial("echo"); !refusedAs(err, "not_signed") {
		t.Errorf("got %v", err)
	}
}

func TestServePrincipals(t *testing.T) {
	r := newRig(t, false)
	log := r.agent(t, map[string]string{"AGENT_TARGETS": "echo,web=echo:", "AGENT_PRINCIPALS": "ops,anon*", "AGENT_TARGET_PRINCIPALS": "web=ops dev"})
	log.wait(t, `level=WARN msg="principals are limited, but AGENT_SIGNAL_KEYS is empty: whoever may write to the hub can claim any name"`)
	sess, err := r.dial("echo")
	if err != nil {
		t.Fatal(err)
	}
	sess.Close()
	if _, err := r.dial("echo", "web"); !refusedAs(err, "principal_not_allowed") || !strings.Contains(err.Error(), `principal "anonymous" is not on this device's list for target "web"`) {
		t.Errorf("got %v", err)
	}
}

// A file appears: what is open ends, and what is asked is refused, until it is gone.
func TestServeKillSwitch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "off")
	r := newRig(t, false)
	log := r.agent(t, map[string]string{"AGENT_TARGETS": "echo", "AGENT_KILL_SWITCH": file})
	sess, err := r.dial("echo")
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	st, err := sess.Open(r.ctx, "echo")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st.SetReadDeadline(time.Now().Add(patience)) // within a second, say the agent's own tests, whose clock no busy machine holds up
	if _, err := io.ReadAll(st); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream ended with %v", err)
	}
	var e *client.Error
	if _, err := r.dial("echo"); !refusedAs(err, "disabled") || !errors.As(err, &e) || !e.Temporary() {
		t.Errorf("got %v", err)
	}
	log.wait(t, `level=WARN msg="remote access is switched off`)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "remote access is on again")
	again, err := client.Dial(context.Background(), client.Config{URL: r.url}, client.Request{Device: "pump-7", Targets: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
