package main

import (
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/signaler"
)

func TestKeygen(t *testing.T) {
	one, two := with(t, nil, "", "keygen"), with(t, nil, "", "keygen")
	if one.fault != nil || one.out == two.out || one.err == two.err {
		t.Fatalf("%v; two keys are the same", one.fault)
	}
	key, err := signaler.ParseSigningKey(one.out)
	if err != nil || key.Public().String()+"\n" != one.err {
		t.Errorf("%v; the public line is %q", err, one.err)
	}
	keys, err := signaler.ParsePublicKeys([]string{one.err, two.err})
	if err != nil || len(keys) != 2 {
		t.Errorf("the public lines: %v", err)
	}
	if got := with(t, nil, "# mine\n"+one.out, "keygen", "--public"); got.fault != nil || got.out != one.err || got.err != "" {
		t.Errorf("--public: %+v", got)
	}
	for in, want := range map[string]string{"": "there is none", one.err: "is a public line", "hunter2": "does not start with"} {
		if got := with(t, nil, in, "keygen", "--public"); got.fault == nil || !strings.Contains(got.fault.Error(), want) || strings.Contains(got.fault.Error(), "hunter2") || got.out != "" {
			t.Errorf("--public: got %+v, want %q", got, want)
		}
	}
}

// The signing key is replaced while bridges are made all the time, by devices that
// list both: not one fails. One that lists the old key only refuses what the new one signs.
func TestRotateSignalKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "signal-key")
	a, b := signaler.NewSigningKey(), signaler.NewSigningKey()
	put(t, file, a.Reveal()+"\n")
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_SIGNAL_KEY_FILE": file, "RELAY_RELOAD": "10ms"})
	r.signed = []signaler.PublicKey{a.Public(), b.Public()}
	r.device("pump-7")
	r.log.wait(t, `msg="signals are signed" key=`+a.Public().String())
	crowd := newCrowd(r, 4)
	crowd.round()
	put(t, file, "# rotated\n"+b.Reveal())
	r.log.wait(t, `level=INFO msg=reloaded setting=RELAY_SIGNAL_KEY_FILE key=`+b.Public().String())
	crowd.round()
	put(t, file, b.Public().String())
	r.log.wait(t, `level=ERROR msg="not reloaded; what was in force stays" setting=RELAY_SIGNAL_KEY_FILE reason="signal key: is a public line`)
	crowd.round()
	crowd.stop()
	for _, k := range []signaler.SigningKey{a, b} {
		if strings.Contains(r.log.String(), strings.TrimPrefix(k.Reveal(), "ed25519-private:")) {
			t.Error("a private key is in the log")
		}
	}
}

// A signal is signed with the relay's key, and nothing else is taken for it.
func TestSignalKey(t *testing.T) {
	key, other := signaler.NewSigningKey(), signaler.NewSigningKey()
	for _, tt := range []struct {
		name   string
		env    map[string]string
		listed signaler.SigningKey
		want   string // in the refusal
	}{
		{"signed", map[string]string{"RELAY_SIGNAL_KEY": key.Reveal()}, key, ""},
		{"by another key", map[string]string{"RELAY_SIGNAL_KEY": key.Reveal()}, other, "which is not on the list"},
		{"not signed", nil, key, "the signal is not signed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"RELAY_PLAIN": "true"}
			for name, value := range tt.env {
				env[name] = value
			}
			r := start(t, env)
			r.signed = []signaler.PublicKey{tt.listed.Public()}
			r.device("pump-7")
			s, err := r.dial()
			if err == nil {
				s.Close()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
