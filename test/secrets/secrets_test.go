//go:build linux

package secrets_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/auth/authtest"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/sas"
	"websocketbridge/test/process/processtest"
	"websocketbridge/test/testlog"
)

const device = "pump-7"

// scene is everything that runs, what it must not tell, and what it has said.
type scene struct {
	t       *testing.T
	dir     string
	secrets *sieve
	planted map[string]bool // files that the test has put secrets into
	said    map[string]func() string

	ca                                string // file with both authorities
	keyFile, apiKeys, tokenKeys, hub  string // files
	key                               string
	hubTap, hubREST, agentHub, public *tap // public is where devices dial: node 2
	entrance                          *tap // of requesters: node 1
	nodes                             []*processtest.Process
	nodeAddr, admin, peerAddr         []string
	agent, emulator                   *processtest.Process
	trust                             *tls.Config
	answers                           testlog.Buffer
	idp                               *authtest.Provider
	spans                             testlog.Buffer // as the nodes have handed them over
	collector                         string         // where; a URL
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

// plant writes a file that may hold secrets.
func (s *scene) plant(name, text string) string {
	s.t.Helper()
	write(s.t, s.path(name), text)
	s.planted[s.path(name)] = true
	return s.path(name)
}

// launch starts a program whose words are searched in the end.
func (s *scene) launch(name string, env []string, args ...string) *processtest.Process {
	s.t.Helper()
	p := launch(s.t, name, env, args...)
	s.said[name+", standard error"] = p.Err.String
	if !strings.HasPrefix(name, "bridge stdio") && !strings.HasPrefix(name, "bridge raw") { // their output is the device's
		s.said[name+", standard output"] = p.Out.String
	}
	list := listed(p)
	s.said[name+", process list"] = func() string { return list }
	return p
}

// newKey makes an API key and its line.
func (s *scene) newKey(name string) (key, line string) {
	s.t.Helper()
	key = auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.secrets.add("API key of "+name, key)
	s.secrets.add("hash of the API key of "+name, hash[strings.LastIndexByte(hash, ':')+1:])
	return key, name + " " + hash
}

func (s *scene) newTokenKey(name string) string {
	text := token.NewKey().Reveal()
	s.secrets.add(name, text)
	return text
}

func (s *scene) newNodes() {
	t := s.t
	dir := s.dir
	a := newAuthority(t)
	cert, certFile, keyFile, key := a.issue(dir, "public")
	_, nodeCert, nodeKey, key2 := a.issue(dir, "node")
	for file, k := range map[string]*ecdsa.PrivateKey{keyFile: key, nodeKey: key2} {
		s.planted[file] = true
		secret, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		s.secrets.add("key of "+filepath.Base(file), base64.StdEncoding.EncodeToString(secret))
	}

	ports := freeAddrs(t, 9)
	s.nodeAddr, s.admin, s.peerAddr = ports[0:2], ports[2:4], ports[4:6]
	hubCA := s.path("hub-ca.pem")
	_, mqtt, _ := net.SplitHostPort(ports[6])
	_, amqp, _ := net.SplitHostPort(ports[7])
	_, rest, _ := net.SplitHostPort(ports[8])
	s.emulator = s.launch("emulator", nil, "-v", "--mqtt-port", mqtt, "--amqp-port", amqp, "--https-port", rest, "--ca-out", hubCA, "--keys-dir", s.path("hub"),
		"--device", device, "--device", "offline")
	s.emulator.Says("connection strings")
	err := filepath.WalkDir(s.path("hub"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		s.planted[path] = true
		cs, err := sas.ParseConnectionString(read(t, path))
		if err == nil {
			s.secrets.add("hub's key "+strings.TrimPrefix(path, s.path("hub")), cs.Key)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ca = s.path("ca.pem")
	write(t, s.ca, string(a.pem)+read(t, hubCA))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, s.ca)))
	s.trust = &tls.Config{RootCAs: roots, ServerName: "localhost"}
	s.hubTap, s.hubREST, s.agentHub = newTap(t, cert, ports[7], s.trust), newTap(t, cert, ports[8], s.trust), newTap(t, cert, ports[6], s.trust)
	s.entrance, s.public = newTap(t, cert, s.nodeAddr[0], s.trust), newTap(t, cert, s.nodeAddr[1], s.trust)

	var line string
	s.key, line = s.newKey("ops")
	s.keyFile = s.plant("ops.key", s.key+"\n")
	s.apiKeys = s.plant("api-keys", line+" devices=pump-*,offline\n")
	s.tokenKeys = s.plant("token-keys", s.newTokenKey("token key")+"\n")
	signing := signaler.NewSigningKey()
	s.secrets.add("key that signs signals", strings.TrimPrefix(signing.Reveal(), "ed25519-private:"))
	signKey := s.plant("signal-key", signing.Reveal()+"\n")
	s.hub = s.plant("hub-connection", read(t, s.path("hub/policies/service")))
	_, publicPort, _ := net.SplitHostPort(s.public.addr)
	signalers := [][]string{{"RELAY_SIGNALER=auto", "RELAY_HUB_HTTPS_ADDR=" + s.hubREST.addr}, {"RELAY_SIGNALER=c2d"}}
	for i := range 2 {
		s.nodes = append(s.nodes, s.launch(fmt.Sprintf("relay %d", i+1), append(signalers[i],
			"RELAY_LISTEN="+s.nodeAddr[i], "RELAY_AUTH=keys,oidc", "RELAY_OIDC_ISSUER="+s.idp.Issuer, "RELAY_OIDC_AUDIENCE=api://bridge",
			"RELAY_ADMIN_LISTEN="+s.admin[i], "RELAY_TLS_CERT="+certFile, "RELAY_TLS_KEY="+keyFile,
			"RELAY_PUBLIC_URL=wss://localhost:"+publicPort, "RELAY_API_KEYS="+s.apiKeys, "RELAY_TOKEN_KEYS_FILE="+s.tokenKeys, "RELAY_SIGNAL_KEY_FILE="+signKey,
			"RELAY_NODE_LISTEN="+s.peerAddr[i], "RELAY_PEERS="+strings.Join(s.peerAddr, ","), "RELAY_NODE_TLS=cert",
			"RELAY_NODE_CERT="+nodeCert, "RELAY_NODE_KEY="+nodeKey, "RELAY_NODE_CA="+s.ca,
			"RELAY_HUB_FEEDBACK=true", "RELAY_HUB_CONNECTION_STRING_FILE="+s.hub, "RELAY_HUB_CA_FILE="+s.ca,
			"RELAY_HUB_AMQP_ADDR="+s.hubTap.addr, "RELAY_DIAL_BACK=2s", "RELAY_RELOAD=0",
			"RELAY_LOG_LEVEL=debug", "RELAY_AUDIT="+s.path(fmt.Sprintf("audit%d.jsonl", i+1)), "RELAY_DRAIN=1s",
			"RELAY_PPROF=true", "OTEL_EXPORTER_OTLP_ENDPOINT="+s.collector, "OTEL_BSP_SCHEDULE_DELAY=100",
		)))
	}
	for _, p := range s.nodes {
		p.Says("relay listens")
	}
	s.agent = s.launch("deviceagent", []string{
		"AGENT_HUB_CONNECTION_STRING_FILE=" + s.path("hub/devices/"+device), "AGENT_CA_FILE=" + s.ca, "AGENT_HUB_ADDR=" + s.agentHub.addr,
		"AGENT_RELAY_HOSTS=localhost", "AGENT_TARGETS=default=echo:,echo,down=tcp:127.0.0.1:1", "AGENT_LOG_LEVEL=debug",
		"AGENT_SIGNAL_KEYS=" + signing.Public().String(),
	})
	s.agent.Says("listening for signals of the hub")
}

// bridge starts the user's command with a file for its key, at the entrance or at addr.
func (s *scene) bridge(name, keyFile string, at *tap, args ...string) *processtest.Process {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(at.addr)
	return s.launch("bridge "+args[0]+" "+name, []string{"BRIDGE_RELAY=wss://localhost:" + port, "BRIDGE_API_KEY_FILE=" + keyFile, "BRIDGE_CA_FILE=" + s.ca},
		append([]string{"--json", "-v"}, args...)...)
}

func TestNoSecretIsTold(t *testing.T) {
	s := &scene{t: t, dir: t.TempDir(), secrets: newSieve(), planted: map[string]bool{}, said: map[string]func() string{}}
	s.said["answers"], s.said["spans"] = s.answers.String, s.spans.String
	s.newCollector()
	s.newProvider()
	s.newNodes()
	tunnel := s.bridges()
	s.signedURLs()
	s.signIn()
	s.refusals()
	s.rotations()
	s.kill()
	s.wrongSettings()
	s.handoff()
	s.learn()

	processtest.Until(s.t, patience, "spans of everything are there", func() bool {
		for _, name := range []string{"connect", "admit", "signal", "dial back", "accept", "join", "forward", "bridge", string(wire.Killed), string(wire.HubFailed)} {
			if !strings.Contains(s.spans.String(), `"`+name+`"`) {
				return false
			}
		}
		return true
	})
	dumped := append(slices.Clone(s.nodes), s.agent, tunnel)
	for _, p := range dumped {
		dump(p)
	}
	s.search()
}

// bridges makes some of each kind; a tunnel stays.
func (s *scene) bridges() *processtest.Process {
	tunnel := s.bridge("stays", s.keyFile, s.entrance, "tunnel", device, "echo")
	local := tunnel.Event("listening", 1).Text("local")
	tunnel.Event("up", 1)
	payload := "payload of nobody's business " + token.NewID().String()
	s.secrets.add("payload", payload)
	c, err := net.Dial("tcp", local)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, payload)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != payload+"\n" {
		s.t.Fatalf("got %q, %v", line, err)
	}
	stdio := s.bridge("once", s.keyFile, s.entrance, "stdio", device, "echo")
	stdio.Write(payload + "\n")
	stdio.CloseInput()
	stdio.Exits(0)
	raw := s.bridge("once", s.keyFile, s.entrance, "raw", "-N", device)
	raw.Write(payload + "\n")
	raw.CloseInput()
	raw.Exits(0)
	down := s.bridge("down", s.keyFile, s.entrance, "raw", device, "down")
	fails(down)
	byMessage := s.bridge("by message", s.keyFile, s.public, "stdio", device, "echo")
	byMessage.Event("up", 1)
	byMessage.CloseInput()
	byMessage.Exits(0)
	offline := s.bridge("offline", s.keyFile, s.entrance, "stdio", "offline", "echo")
	fails(offline)
	return tunnel
}

// ask is a request whose answer must tell no secret either, but for that of getSignedUrl.
func (s *scene) ask(method, url, key, body string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	tr := &http.Transport{TLSClientConfig: s.trust}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(&s.answers, "%s\n%v\n", resp.Status, resp.Header)
	if r.URL.Path != wire.PathGetSignedURL || resp.StatusCode != http.StatusOK {
		s.answers.Write(append(b, '\n'))
	}
	return resp.StatusCode, string(b)
}

func (s *scene) dial(url string) error {
	d := ws.Dialer{TLS: s.trust}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := d.DialWebSocket(ctx, url, nil)
	if err == nil {
		return c.Close()
	}
	fmt.Fprintln(&s.answers, err)
	if h := (*ws.HandshakeError)(nil); errors.As(err, &h) {
		fmt.Fprintf(&s.answers, "%v\n%s\n", h.Header, h.Body)
	}
	return err
}

// signedURLs makes one with request data, uses it, and breaks it.
func (s *scene) signedURLs() {
	data := "request data of nobody's business " + token.NewID().String()
	s.secrets.add("request data", data)
	q := url.Values{wire.ParamDeviceID: {device}, wire.ParamRequestData: {data}, wire.ParamExpirationUTC: {time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}
	status, signed := s.ask("GET", "https://"+s.entrance.addr+wire.PathGetSignedURL+"?"+q.Encode(), s.key, "")
	if status != http.StatusOK {
		s.t.Fatalf("getSignedUrl: %d %s", status, signed)
	}
	u, err := url.Parse(signed)
	if err != nil {
		s.t.Fatal(err)
	}
	s.secrets.add("signature of a URL", u.Query().Get(wire.ParamSignature))
	if err := s.dial(signed); err != nil {
		s.t.Errorf("signed URL: %v", err)
	}
	q.Set(wire.ParamOnce, "true")
	_, once := s.ask("GET", "https://"+s.entrance.addr+wire.PathGetSignedURL+"?"+q.Encode(), s.key, "")
	ticket, err := url.Parse(once)
	if err != nil {
		s.t.Fatal(err)
	}
	s.secrets.add("signature of a URL that works once", ticket.Query().Get(wire.ParamSignature))
	s.secrets.add("ticket of a URL that works once", ticket.Query().Get(wire.ParamOnce))
	if err := s.dial(once); err != nil {
		s.t.Errorf("signed URL that works once: %v", err)
	}
	if err := s.dial(once); err == nil {
		s.t.Error("a signed URL that works once worked twice")
	}
	for _, broken := range []string{
		strings.Replace(signed, "deviceId="+device, "deviceId=other", 1), signed + "%zz", signed + "&signature=" + u.Query().Get(wire.ParamSignature),
		signed[:len(signed)-3], strings.Replace(signed, "principal=ops", "principal=root", 1),
	} {
		if s.dial(broken) == nil {
			s.t.Error("a broken URL works")
		}
	}
	s.ask("POST", strings.Replace(signed, "wss", "https", 1), "", "x")
	s.ask("GET", strings.Replace(signed, "wss", "https", 1), "", "")
}

// refusals brings good secrets where they do no good, and wrong ones everywhere.
func (s *scene) refusals() {
	wrong, _ := s.newKey("nobody")
	fails(s.bridge("wrong key", s.plant("wrong.key", wrong), s.entrance, "stdio", device, "echo"))
	fails(s.bridge("forbidden", s.keyFile, s.entrance, "stdio", "mill", "echo"))
	fails(s.bridge("two keys", s.plant("two.key", s.key+"\n"+wrong), s.entrance, "stdio", device, "echo"))
	tokens := bridgeTokens(s.public.heard())
	if len(tokens) < 4 {
		s.t.Fatalf("only %d bridge tokens went by", len(tokens))
	}
	foreign, err := token.NewRing(token.NewKey())
	if err != nil {
		s.t.Fatal(err)
	}
	forged, err := foreign.Seal(token.Claims{Instance: token.NewID(), BridgeID: token.NewID(), DeviceID: device, Expires: time.Now().Add(time.Minute)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.secrets.add("forged token", forged)
	for _, addr := range s.nodeAddr {
		for _, tok := range []string{tokens[0], forged, tokens[0][:len(tokens[0])/2], tokens[0] + "%zz", tokens[0] + tokens[1]} {
			at := addr + wire.PathAccept + "?bridgeToken=" + tok
			if s.dial("wss://"+at) == nil {
				s.t.Error("a spent token works")
			}
			s.ask("GET", "https://"+strings.TrimSuffix(at, "%zz"), "", "")
			s.ask("POST", "https://"+strings.TrimSuffix(strings.Replace(at, "accept", "reject", 1), "%zz"), "", `{"code":"c","message":"`+tok+`"}`)
		}
		s.ask("GET", "https://"+addr+wire.PathConnect+"?deviceId="+device+"&apiKey="+s.key, s.key, "")
		s.ask("GET", "https://"+addr+"/"+s.key, wrong, "")
		s.ask("GET", "https://"+addr+wire.PathConnect+"?upgrade="+s.key+"&deviceId="+wrong, s.key, "")
		s.ask("GET", "https://"+addr+wire.PathConnect+"?deviceId="+device, s.key+"\t"+wrong, "")
		for _, raw := range []string{
			"GET /bridge/accept?bridgeToken=" + tokens[0] + " HTTP/9.9\r\nHost: a\r\n\r\n",
			"GET /bridge/accept?bridgeToken=" + tokens[0] + " x HTTP/1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key " + s.key + "\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: " + s.key + "\x01\r\n\r\n",
			"GET /bridge/connect?deviceId=x HTTP/1.1\r\nHost: a\r\nX-Api-Key: " + s.key + "\r\nTransfer-Encoding: " + s.key + "\r\n\r\n",
			"GET /bridge/connect?deviceId=x HTTP/1.1\r\nHost: a\r\nContent-Length: " + s.key + "\r\n\r\n",
		} {
			s.shout(addr, s.trust, raw)
		}
	}
	for _, addr := range append(slices.Clone(s.admin), s.peerAddr...) {
		s.shout(addr, nil, "GET /bridge/accept?bridgeToken="+tokens[0]+" HTTP/1.1\r\nHost: a\r\nX-Api-Key: "+s.key+"\r\nConnection: close\r\n\r\n")
	}
}

// shout writes to a port what no client would, and keeps the answer.
func (s *scene) shout(addr string, trust *tls.Config, text string) {
	s.t.Helper()
	var c net.Conn
	var err error
	if trust != nil {
		c, err = tls.Dial("tcp", addr, trust)
	} else {
		c, err = net.Dial("tcp", addr)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, text)
	io.Copy(&s.answers, c) // to its end, which may be a reset
}

// rotations puts new secrets in force, faulty ones, and one that the hub does not take.
func (s *scene) rotations() {
	old := read(s.t, s.tokenKeys)
	next := s.newTokenKey("next token key")
	s.reload("reloaded", "RELAY_TOKEN_KEYS_FILE", s.tokenKeys, next+"\n"+old)
	s.reload("not reloaded", "RELAY_TOKEN_KEYS_FILE", s.tokenKeys, old+next[:30]+"\n")
	s.reload("reloaded", "RELAY_TOKEN_KEYS_FILE", s.tokenKeys, next+"\n")
	keys := read(s.t, s.apiKeys) + "\n"
	_, line := s.newKey("ci")
	s.reload("reloaded", "RELAY_API_KEYS", s.apiKeys, keys+line+"\n")
	s.reload("not reloaded", "RELAY_API_KEYS", s.apiKeys, keys+"me "+s.key+"\n") // the key and not its hash
	s.reload("not reloaded", "RELAY_API_KEYS", s.apiKeys, s.key+"\n")
	s.reload("reloaded", "RELAY_API_KEYS", s.apiKeys, keys)

	good := read(s.t, s.hub)
	cs, err := sas.ParseConnectionString(good)
	if err != nil {
		s.t.Fatal(err)
	}
	wrong := token.NewKey().Reveal()
	s.secrets.add("hub's key that is wrong", wrong)
	s.reload("not reloaded", "RELAY_HUB_CONNECTION_STRING_FILE", s.hub, strings.Replace(good, "SharedAccessKey=", "SharedAccessKei=", 1))
	s.reload("not reloaded", "RELAY_HUB_CONNECTION_STRING_FILE", s.hub, cs.Key)
	s.reload("reloaded", "RELAY_HUB_CONNECTION_STRING_FILE", s.hub, strings.Replace(good, cs.Key, wrong, 1))
	fails(s.bridge("hub refuses", s.keyFile, s.entrance, "stdio", device, "echo"))
	s.reload("reloaded", "RELAY_HUB_CONNECTION_STRING_FILE", s.hub, good)
}

// reload replaces a file and waits until both nodes have said what became of it.
func (s *scene) reload(outcome, setting, file, text string) {
	s.t.Helper()
	re := regexp.MustCompile(`msg="?` + outcome + `\b.* setting=` + setting + `\b`)
	count := func(p *processtest.Process) int { return len(re.FindAllString(p.Err.String(), -1)) }
	var before []int
	for _, p := range s.nodes {
		before = append(before, count(p))
	}
	s.plant(filepath.Base(file), text)
	for _, p := range s.nodes {
		p.Signal(syscall.SIGHUP)
	}
	for i, p := range s.nodes {
		p.Awaits("says "+outcome+" of "+setting, func() bool { return count(p) > before[i] })
	}
}

var bridgeID = regexp.MustCompile(`"bridgeId":"([a-z2-7]+)"`)

// kill lists the bridges at one node and ends one that another has.
func (s *scene) kill() {
	stdio := s.bridge("killed", s.keyFile, s.public, "stdio", device, "echo")
	stdio.Event("up", 1)
	_, list := s.ask("GET", "http://"+s.admin[1]+wire.PathBridges+"?local", "", "")
	id := bridgeID.FindStringSubmatch(list)
	if id == nil {
		s.t.Fatalf("no bridge in %s", list)
	}
	s.ask("GET", "http://"+s.admin[0]+wire.PathBridges, "", "")
	if status, body := s.ask("DELETE", "http://"+s.admin[0]+wire.PathBridges+"/"+id[1], "", ""); status != http.StatusNoContent {
		s.t.Fatalf("kill: %d %s", status, body)
	}
	fails(stdio)
	s.ask("DELETE", "http://"+s.admin[0]+wire.PathBridges+"/"+id[1], "", "")
	for _, admin := range s.admin {
		for _, path := range []string{"/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/vars", wire.PathReadyz} {
			s.ask("GET", "http://"+admin+path, "", "")
		}
		if _, text := s.ask("GET", "http://"+admin+wire.PathMetrics, "", ""); !strings.Contains(text, "\nrelay_refused_total{") || !strings.Contains(text, "\nrelay_bridges_closed_total{") {
			s.t.Errorf("no metrics of bridges and refusals:\n%s", text)
		}
	}
}

// wrongSettings starts programs with secrets where they do not belong.
func (s *scene) wrongSettings() {
	tokenKey := s.newTokenKey("token key in the wrong place")
	hub := read(s.t, s.path("hub/policies/service"))
	base := []string{"RELAY_PLAIN=true", "RELAY_LISTEN=127.0.0.1:0", "RELAY_ADMIN_LISTEN="}
	relay := func(name string, env ...string) {
		s.t.Helper()
		s.attempt("relay with "+name, append(slices.Clone(base), env...))
	}
	relay("a key for a hash", "RELAY_SIGNALER=fake", "RELAY_API_KEYS="+s.plant("bad-api-keys", "ops "+s.key+"\n"))
	relay("token keys as API keys", "RELAY_SIGNALER=fake", "RELAY_API_KEYS="+s.plant("bad-api-keys2", tokenKey+"\n"))
	relay("broken token keys", "RELAY_SIGNALER=fake", "RELAY_AUTH=none", "RELAY_TOKEN_KEYS_FILE="+s.plant("bad-token-keys", tokenKey[:40]+"\n"+tokenKey+tokenKey))
	relay("half a connection string", "RELAY_AUTH=none", "RELAY_HUB_CONNECTION_STRING_FILE="+s.plant("bad-hub", strings.Replace(hub, ";", ",", 1)))
	relay("a key for a connection string", "RELAY_AUTH=none", "RELAY_HUB_CONNECTION_STRING_FILE="+s.plant("bad-hub2", tokenKey))
	relay("a key for a certificate", "RELAY_PLAIN=false", "RELAY_TLS_CERT="+s.path("public.key"), "RELAY_TLS_KEY="+s.path("public.key"), "RELAY_AUTH=none", "RELAY_SIGNALER=fake")
	agent := []string{"AGENT_RELAY_HOSTS=localhost", "AGENT_TARGETS=echo"}
	s.attempt("deviceagent with half a connection string", append(agent, "AGENT_HUB_CONNECTION_STRING_FILE="+
		s.plant("bad-device", strings.Replace(read(s.t, s.path("hub/devices/"+device)), "SharedAccessKey=", "SharedAccessKey=?", 1))))
	s.attempt("deviceagent with a token key", append(agent, "AGENT_HUB_CONNECTION_STRING_FILE="+s.plant("bad-device2", tokenKey)))
}

// attempt starts a program that is to fail.
func (s *scene) attempt(name string, env []string) {
	s.t.Helper()
	p := launch(s.t, name, env)
	s.said[name] = p.String
	fails(p)
	if p.Err.String() == "" {
		s.t.Errorf("%s says nothing", name)
	}
}

// handoff hands an agent signals that it cannot use: spent, foreign, broken; and one
// with a wrong token.
func (s *scene) handoff() {
	addr := freeAddrs(s.t, 1)[0]
	secret, wrong := token.NewKey().Reveal(), token.NewKey().Reveal()
	s.secrets.add("hand-off token", secret)
	s.secrets.add("hand-off token that is wrong", wrong)
	env := []string{
		"AGENT_DEVICE_ID=pump-9", "AGENT_RELAY_HOSTS=localhost", "AGENT_TARGETS=default=echo:", "AGENT_SIGNALS=handoff", "AGENT_HANDOFF=http:" + addr, "AGENT_CA_FILE=" + s.ca,
		"AGENT_LOG_LEVEL=debug", "AGENT_HANDOFF_TOKEN_FILE=" + s.plant("handoff-token", secret),
	}
	agent := s.launch("deviceagent of hand-off", env)
	agent.Says("listening for signals from this device's hub client")
	tokens := bridgeTokens(s.public.heard())
	spent := tokens[len(tokens)-1] // of a key that is in force
	_, port, _ := net.SplitHostPort(s.public.addr)
	signal := func(url string) string {
		return fmt.Sprintf(`{"acceptUrl":%q,"requestData":%q,"v":1,"bridgeId":%q,"deviceId":"pump-9","expiresAt":%q}`,
			url, "", token.NewID().String(), time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))
	}
	post := func(bearer, body string) {
		s.t.Helper()
		s.ask("POST", "http://"+addr+"/signal", bearer, body)
	}
	accept := wire.PathAccept + "?bridgeToken=" + spent
	for _, body := range []string{
		signal("wss://localhost:" + port + accept), signal("wss://foreign.example" + accept), signal("wss://localhost:1" + accept), signal("wss://localhost:" + port + accept + "%zz"),
		signal("http://localhost" + accept), signal("wss://user:" + spent + "@localhost" + accept), signal(spent)[:60],
	} {
		post(secret, body)
		post(wrong, body)
	}
	agent.Says("bridge_gone")
	dump(agent)
}

var (
	tokenOnWire = regexp.MustCompile(`bridgeToken(?:=|%3D)([\w-]{40,})`)
	sasOnWire   = regexp.MustCompile(`SharedAccessSignature [^\s"]*?sig=([^&\s"\x00]+)`)
)
