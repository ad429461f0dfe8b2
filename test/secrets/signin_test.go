//go:build linux

package secrets_test

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"websocketbridge/relay/auth/authtest"
	"websocketbridge/relay/wire"
)

// newProvider is where people sign in; its claims name one who may reach nothing.
func (s *scene) newProvider() {
	idp, stop := authtest.Start()
	s.t.Cleanup(stop)
	idp.Life = time.Second // each use has to refresh
	idp.SetClaims(map[string]any{"aud": "api://bridge", "sub": "1", "preferred_username": "ada@example.com"})
	s.idp = idp
}

// signIn is of a person: good tokens, one that the relay refuses, and ones that are broken.
func (s *scene) signIn() {
	_, port, _ := net.SplitHostPort(s.entrance.addr)
	home := s.path("home")
	env := []string{"BRIDGE_RELAY=wss://localhost:" + port, "BRIDGE_CA_FILE=" + s.ca, "HOME=" + home, "XDG_CONFIG_HOME=" + home,
		"BRIDGE_OIDC_ISSUER=" + s.idp.Issuer, "BRIDGE_OIDC_CLIENT_ID=bridge"}
	run := func(name string, no bool, args ...string) {
		p := s.launch("bridge "+name, env, append([]string{"--json", "-v"}, args...)...)
		if no {
			fails(p)
		} else {
			p.Exits(0)
		}
	}
	s.idp.SetPending("authorization_pending")
	run("login", false, "login")
	kept, err := filepath.Glob(filepath.Join(home, "*", "*"))
	if err != nil || len(kept) == 0 {
		s.t.Fatalf("nothing is kept in %s: %v", home, err)
	}
	for _, file := range kept {
		s.planted[file] = true
	}
	run("can-i", true, "can-i", device, "echo") // refreshes
	run("stdio signed in", true, "stdio", device, "echo")
	s.idp.SetRefuse("invalid_grant")
	run("stdio that cannot refresh", true, "stdio", device, "echo")
	s.idp.SetPending("access_denied")
	run("login refused", true, "login")

	expired := s.idp.Sign(map[string]any{"aud": "api://bridge", "sub": "1", "exp": 1})
	foreign := s.idp.Sign(map[string]any{"aud": "api://other", "sub": "1"})
	issued := append(s.idp.Issued(), expired, foreign)
	if len(issued) < 4 {
		s.t.Errorf("only %d tokens were issued", len(issued))
	}
	for i, tok := range issued {
		s.secrets.add(fmt.Sprintf("token %d of a person", i), tok)
		canI := "https://" + s.entrance.addr + wire.PathCanI + "?deviceId=" + device
		s.ask("GET", canI, tok, "")
		for _, broken := range []string{tok + "x", tok[:len(tok)-3], tok + ".x"} {
			if status, _ := s.ask("GET", canI, broken, ""); status != http.StatusUnauthorized {
				s.t.Errorf("token %d, broken: %d", i, status)
			}
		}
	}
	run("logout", false, "logout")
	run("stdio signed out", true, "stdio", device, "echo")
}
