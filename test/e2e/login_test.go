package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/relay/auth/authtest"
	"websocketbridge/test/process/processtest"
)

// A person signs in, and the relay knows who it is, beside API keys. Who comes by a token
// may reach nothing until a rule says so, and then what it says.
func TestSignIn(t *testing.T) {
	idp, stop := authtest.Start()
	defer stop()
	idp.SetClaims(map[string]any{"aud": "api://bridge", "sub": "1", "preferred_username": "ada@example.com"})
	idp.SetPending("authorization_pending")
	w := newTown(t, "echo")
	w.relay.Kill()
	w.relayEnv = append(w.relayEnv, "RELAY_AUTH=keys,oidc", "RELAY_OIDC_ISSUER="+idp.Issuer, "RELAY_OIDC_AUDIENCE=api://bridge")
	w.startRelay()
	w.online(true)
	tunnel, local := w.tunnel() // by its key
	echoes(t, local)

	dir := t.TempDir()
	w.bridgeEnv = []string{
		w.bridgeEnv[0], "HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "BRIDGE_OIDC_ISSUER=" + idp.Issuer, "BRIDGE_OIDC_CLIENT_ID=bridge",
	}
	nobody := w.bridge("stdio", device, "echo")
	nobody.Fails(4, "unauthenticated")
	login := w.bridge("login")
	login.Exits(0)
	if e := login.Event("signed_in", 1); e.Text("name") != "ada@example.com" {
		t.Errorf("signed in: %v", e)
	}
	stdio := w.bridge("stdio", device, "echo")
	stdio.Fails(4, "forbidden")
	if detail := stdio.Event("error", 1).Text("detail"); !strings.Contains(detail, `"oidc:ada@example.com" may reach nothing`) {
		t.Errorf("refused with %q", detail)
	}
	w.relay.Says(`principal=oidc:ada@example.com`)

	rules := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(rules, []byte("version: 1\nrules:\n- {name: staff, who: ['oidc:*@example.com'], devices: ['*'], targets: [echo]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := w.relay
	before.Kill()
	w.relayEnv = append(w.relayEnv, "RELAY_POLICY="+rules)
	w.startRelay()
	w.online(true)
	allowed := w.bridge("can-i", device, "echo")
	allowed.Exits(0)
	mine, local := w.tunnel()
	echoes(t, local)
	w.relay.Says("rule=staff")
	logout := w.bridge("logout")
	logout.Exits(0)
	w.bridge("stdio", device, "echo").Fails(4, "unauthenticated")

	secrets := append(idp.Issued(), "device-code-secret")
	for _, p := range []*processtest.Process{before, w.relay, w.agent, tunnel, mine, login, stdio, allowed, logout} {
		for _, secret := range secrets {
			if strings.Contains(p.String(), secret) {
				t.Errorf("%s printed a token", p.Name)
			}
		}
	}
}
