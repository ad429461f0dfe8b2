//go:build proxies && linux

package proxies_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

const (
	caddyfile = "../../infra/caddy/Caddyfile"
	nginxConf = "../../infra/nginx/nginx.conf"
)

// The Caddyfile of infra, as it is, in front of two nodes: Debian's caddy.
func TestCaddy(t *testing.T) {
	state := t.TempDir()
	ca := filepath.Join(state, "caddy", "pki", "authorities", "local", "root.crt")
	var caddy *processtest.Process
	w := newWorld(t, plan{nodes: 2, base: 8080, url: "wss://localhost", caFile: ca, front: func(w *world) {
		caddy = launch(t, []string{
			"XDG_DATA_HOME=" + state, "XDG_CONFIG_HOME=" + state,
			"PROXY_UPSTREAMS=" + strings.Join(w.public, " "), "PROXY_HEALTH_PORT=8081",
		}, "caddy", "run", "--adapter", "caddyfile", "--config", caddyfile)
		caddy.Says("serving initial configuration")
		until(t, "Caddy has an authority", func() bool { _, err := os.Stat(ca); return err == nil })
	}})
	w.carries(ca, "https://localhost", caddy.String)
}

// nginx.conf of infra in front of two nodes: Debian's nginx.
func TestNginx(t *testing.T) {
	dir := t.TempDir()
	ca, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	run(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
		"-subj", "/CN="+relayHost, "-addext", "subjectAltName=DNS:"+relayHost, "-keyout", key, "-out", ca)
	w := newWorld(t, plan{nodes: 2, base: 8080, url: "wss://" + relayHost, caFile: ca})
	b, err := os.ReadFile(nginxConf)
	if err != nil {
		t.Fatal(err)
	}
	conf := string(b)
	second := strings.Replace("server 127.0.0.1:8080", "127.0.0.1:8080", w.public[1], 1)
	for _, r := range []struct{ old, new string }{ // what its head tells to replace
		{"/etc/nginx/tls/fullchain.pem", ca}, {"/etc/nginx/tls/privkey.pem", key},
		{"server 127.0.0.1:8080 max_fails=1 fail_timeout=5s;", "server " + w.public[0] + " max_fails=1 fail_timeout=5s;\n" + second + " max_fails=1 fail_timeout=5s;"},
	} {
		if strings.Count(conf, r.old) != 1 {
			t.Fatalf("%s has %q %d times", nginxConf, r.old, strings.Count(conf, r.old))
		}
		conf = strings.Replace(conf, r.old, r.new, 1)
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	nginx := launch(t, nil, "/usr/sbin/nginx", "-c", path, "-g", "daemon off;")
	w.carries(ca, "https://"+relayHost, func() string {
		said := nginx.String()
		for _, name := range []string{"access.log", "error.log"} {
			b, err := os.ReadFile(filepath.Join("/var/log/nginx", name))
			if err != nil {
				t.Fatal(err)
			}
			said += string(b)
		}
		return said
	})
}

// carries has the proxy at url carry an idle session and a large transfer, through both nodes,
// and wants no secret in what it logs, logged().
func (w *world) carries(ca, url string, logged func() string) {
	t := w.t
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", ca)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	defer transport.CloseIdleConnections()
	w.ready(client, url)

	tunnel, local := w.tunnel("ssh", "blob")
	s := w.session(local["ssh"])
	w.transfer(local["blob"], number(t, "PROXIES_BYTES", 64<<20))
	idle := duration(t, "PROXIES_IDLE", 3*time.Second)
	w.idle(s, idle)
	if n := len(tunnel.Events("lost", "moving")); n > 0 {
		t.Errorf("the tunnel was lost or moved %d times", n)
	}
	for range 4 { // with accepts that reach the node that does not own the bridge
		_, local := w.tunnel("blob")
		w.transfer(local["blob"], 1<<20)
	}

	// What fails is logged as well: a token that is forged, a relay that is gone.
	const secret = "c2VjcmV0LW9mLWEtdGVzdA"
	fails := func(path string) int {
		req, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", secret)
		req.Header.Set("Authorization", "Bearer "+secret)
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("GET %s: %v", path[:12], err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	paths := []string{
		"/bridge/accept?bridgeToken=" + secret,
		"/bridge/connectSigned?deviceId=pump-7&requestData=" + secret + "&expirationUtc=2030-01-01T00:00:00Z&once=" + secret + "&principal=me&signature=" + secret,
		"/bridge/nothing?bridgeToken=" + secret, "/elsewhere?bridgeToken=" + secret,
	}
	for _, path := range paths {
		if code := fails(path); code < 400 || code > 499 {
			t.Errorf("%s: status %d", path[:12], code)
		}
	}
	for _, n := range w.nodes {
		n.Kill()
	}
	for _, path := range paths[:2] {
		if code := fails(path); code < 500 {
			t.Errorf("%s without a relay: status %d", path[:12], code)
		}
	}

	var said string
	until(t, "the proxy has logged accepts, connects and failures", func() bool {
		said = logged()
		return strings.Contains(said, "/bridge/accept") && strings.Contains(said, "/bridge/connectSigned") && strings.Contains(said, "/elsewhere") &&
			regexp.MustCompile(`\b50[234]\b`).MatchString(said)
	})
	// A bridge token is the longest word there is; nothing else has 60 letters.
	for _, re := range []string{secret, `bridgeToken=[^R&"]`, `signature=[^R&"]`, `[A-Za-z0-9_-]{60,}`} {
		if found := regexp.MustCompile(re).FindString(said); found != "" {
			i := strings.Index(said, found)
			t.Errorf("the proxy logs %.12s… (%s), in\n%s", found, re, said[max(0, i-300):min(len(said), i+30)])
		}
	}
	t.Logf("idle for %v; %d bytes of log, of which the last are\n%s", idle, len(said), lastLines(said, 2))
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return fmt.Sprint(strings.Join(lines[max(0, len(lines)-n):], "\n"))
}
