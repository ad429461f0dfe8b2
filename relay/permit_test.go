package relay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

// A bubble's time begins on Saturday 2000-01-01 at 00:00 UTC.
const rules = `version: 1
rules:
  - name: operators
    who: [ops]
    devices: [pump-*]
    targets: [ssh, web, "-"]
    caps: {bridges: 2, max_duration: 2h, max_bytes: 10KB}
  - name: weekend
    who: [ops, ann]
    devices: [valve-*]
    targets: [ssh]
    hours: {days: sat, from: "00:00", to: "03:00", zone: UTC}
  - name: no-secrets
    deny: true
    who: ["*"]
    devices: ["*"]
    targets: [secret]
  - name: links
    who: [{method: signed-url}]
    devices: [tank-1]
    targets: [ssh]
  - name: users
    who: [{claim: roles, is: Bridge.User}]
    devices: [tank-1, pump-1]
    targets: [ssh]
`

func mustPolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// byName takes the API key for the name, and everybody for one with the role Bridge.User
// whose name has a colon.
func byName(grants ...auth.Grant) authFunc {
	return func(r *http.Request) (*auth.Principal, error) {
		name := r.Header.Get(wire.HeaderAPIKey)
		if name == "" {
			return nil, auth.ErrNoCredentials
		}
		p := &auth.Principal{Name: name, Method: auth.MethodAPIKey, Grants: grants}
		if strings.Contains(name, ":") {
			p.Method, p.Claims = auth.MethodOIDC, map[string][]string{"roles": {"Bridge.User"}}
		}
		return p, nil
	}
}

func withPolicy(t *testing.T, a relay.Authenticator) func(*relay.Config) {
	return func(c *relay.Config) { c.Policy, c.Auth = mustPolicy(t, rules), a }
}

func (n *node) connectAs(name, query string) (*ws.Conn, error) {
	return n.dialer().DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?"+query, http.Header{wire.HeaderAPIKey: {name}})
}

// openAs is open with a name.
func (n *node) openAs(name, query string) (requester, device *ws.Conn) {
	n.t.Helper()
	return n.opened(func() (*ws.Conn, error) { return n.connectAs(name, query) })
}

// opened makes a bridge of what dial opens.
func (n *node) opened(dial func() (*ws.Conn, error)) (requester, device *ws.Conn) {
	n.t.Helper()
	done := make(chan dialed, 1)
	go func() {
		c, err := dial()
		done <- dialed{c, err}
	}()
	select {
	case s := <-n.signals:
		device, err := n.accept(s)
		if err != nil {
			n.t.Fatal(err)
		}
		got := <-done
		if got.err != nil {
			n.t.Fatal(got.err)
		}
		return got.conn, device
	case got := <-done:
		n.t.Fatalf("refused: %v", got.err)
		return nil, nil
	}
}

// canI asks, and returns the answer with its status.
func (n *node) canI(name, query string) (int, wire.Permission, wire.Problem) {
	n.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://relay.test/front"+wire.PathCanI+"?"+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set(wire.HeaderAPIKey, name)
	resp, err := n.httpClient().Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		n.t.Errorf("Cache-Control %q", got)
	}
	if resp.StatusCode != http.StatusOK {
		p, err := wire.ParseProblem(body)
		if err != nil {
			n.t.Fatal(err)
		}
		return resp.StatusCode, wire.Permission{}, p
	}
	p, err := wire.ParsePermission(body)
	if err != nil {
		n.t.Fatalf("%s: %v", body, err)
	}
	return resp.StatusCode, p, wire.Problem{}
}

// What connect does and what canI says is the same.
func TestPolicy(t *testing.T) {
	grant := func(devices, targets string) auth.Grant {
		d, err := auth.ParseGlob(devices)
		if err != nil {
			t.Fatal(err)
		}
		g, err := auth.ParseGlob(targets)
		if err != nil {
			t.Fatal(err)
		}
		return auth.Grant{Devices: []auth.Glob{d}, Targets: []auth.Glob{g}}
	}
	for _, tt := range []struct {
		name, as, query string
		grants          []auth.Grant
		rule            string
		why             string // of a no
	}{
		{name: "allowed", as: "ops", query: "deviceId=pump-7&target=ssh", rule: "operators"},
		{name: "the default target", as: "ops", query: "deviceId=pump-7", rule: "operators"},
		{name: "two targets", as: "ops", query: "deviceId=pump-7&target=ssh,web", rule: "operators"},
		{name: "one of two", as: "ops", query: "deviceId=pump-7&target=ssh,db", why: `"ops" may reach device "pump-7", but not target "db" there`},
		{name: "another device", as: "ops", query: "deviceId=tank-7&target=ssh", why: `"ops" may not reach device "tank-7"`},
		{name: "nobody", as: "eve", query: "deviceId=pump-7&target=ssh", why: `no rule of the policy lets "eve" in`},
		{name: "denied", as: "ops", query: "deviceId=pump-7&target=ssh,secret", why: `rule "no-secrets" keeps "ops" from target "secret" on device "pump-7"`},
		{name: "by a claim", as: "oidc:ann", query: "deviceId=pump-1&target=ssh", rule: "users"},
		{name: "within hours", as: "ann", query: "deviceId=valve-1&target=ssh", rule: "weekend"},
		{name: "the key's own limit", as: "ops", query: "deviceId=pump-7&target=ssh", grants: []auth.Grant{grant("pump-1", "*")}, why: `"ops" may not reach device "pump-7"`},
		{name: "the key's own targets", as: "ops", query: "deviceId=pump-7&target=ssh", grants: []auth.Grant{grant("*", "web")}, why: `"ops" may reach device "pump-7", but not target "ssh" there`},
		{name: "within both", as: "ops", query: "deviceId=pump-7&target=ssh", grants: []auth.Grant{grant("pump-7", "s*")}, rule: "operators"},
		{name: "a key's limit alone allows nothing", as: "eve", query: "deviceId=pump-7", grants: []auth.Grant{grant("*", "*")}, why: `no rule of the policy lets "eve" in`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, withPolicy(t, byName(tt.grants...)), func(n *node) {
				defer n.srv.Kill()
				status, p, _ := n.canI(tt.as, tt.query)
				if status != http.StatusOK || p.Allowed != (tt.why == "") {
					t.Fatalf("canI: %d %+v", status, p)
				}
				if tt.why == "" {
					if p.Rule != tt.rule || p.Caps == nil {
						t.Errorf("canI: %+v", p)
					}
					if len(n.signals) != 0 {
						t.Error("asking tells the device")
					}
					requester, device := n.openAs(tt.as, tt.query)
					echo(t, requester, device)
					synctest.Wait()
					wantLog(t, n, "rule="+tt.rule)
					return
				}
				if p.Why != tt.why || p.Caps != nil || p.Until != nil {
					t.Errorf("canI: %+v", p)
				}
				_, err := n.connectAs(tt.as, tt.query)
				if p := wantStatus(t, err, http.StatusForbidden, wire.Forbidden); p.Detail != tt.why {
					t.Errorf("got  %s\nwant %s", p.Detail, tt.why)
				}
			})
		})
	}
}

func TestCanI(t *testing.T) {
	inBubble(t, func(c *relay.Config) {
		withPolicy(t, byName())(c)
		c.MaxDuration, c.Idle = time.Hour, 10*time.Minute
	}, func(n *node) {
		_, p, _ := n.canI("ops", "deviceId=pump-7&target=ssh")
		if want := (wire.Caps{Bridges: 2, MaxDuration: 3600, Idle: 600, MaxBytes: 10_000}); *p.Caps != want || p.Until != nil {
			t.Errorf("got %+v", p)
		}
		_, p, _ = n.canI("ann", "deviceId=valve-1&target=ssh")
		if p.Until == nil || !p.Until.Equal(time.Date(2000, 1, 1, 3, 0, 0, 0, time.UTC)) || p.Why != `rule "weekend" allows it until 2000-01-01T03:00:00Z` {
			t.Errorf("got %+v", p)
		}
		time.Sleep(3 * time.Hour)
		_, p, _ = n.canI("ann", "deviceId=valve-1&target=ssh")
		if p.Allowed || p.Why != `rule "weekend" lets "ann" reach target "ssh" on device "valve-1" sat 00:00-03:00 UTC only; it is Saturday 03:00 there` {
			t.Errorf("got %+v", p)
		}
		for query, want := range map[string]wire.Code{"target=ssh": wire.BadRequest, "deviceId=a%2Fb": wire.BadRequest, "deviceId=%zz": wire.BadRequest} {
			if status, _, p := n.canI("ops", query); status != http.StatusBadRequest || p.Code != want {
				t.Errorf("%s: %d %+v", query, status, p)
			}
		}
		if status, _, p := n.canI("", "deviceId=d"); status != http.StatusUnauthorized || p.Code != wire.Unauthenticated {
			t.Errorf("%d %+v", status, p)
		}
		for _, tt := range []struct {
			method, origin string
			status         int
		}{{"POST", "", 405}, {"HEAD", "", 405}, {"GET", "https://evil.example", 403}} {
			req, _ := http.NewRequest(tt.method, "http://relay.test/front"+wire.PathCanI+"?deviceId=d", nil)
			req.Header.Set(wire.HeaderAPIKey, "ops")
			if tt.origin != "" {
				req.Header.Set("Origin", tt.origin)
			}
			resp, err := n.httpClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("%s from %q: %d", tt.method, tt.origin, resp.StatusCode)
			}
		}
		if len(n.signals) != 0 {
			t.Error("a device was told")
		}
	})
	// Without a policy the key's own limits decide.
	inBubble(t, func(c *relay.Config) { c.Auth = byKey(t, nil) }, func(n *node) {
		if _, p, _ := n.canI("good", "deviceId=pump-7&target=ssh"); !p.Allowed || p.Rule != "" || p.Why != "the credentials allow it" {
			t.Errorf("got %+v", p)
		}
		if _, p, _ := n.canI("good", "deviceId=pump-7&target=db"); p.Allowed || p.Why != `"ops" may reach device "pump-7", but not target "db" there` {
			t.Errorf("got %+v", p)
		}
	})
}

func TestPolicyCaps(t *testing.T) {
	inBubble(t, withPolicy(t, byName()), func(n *node) {
		defer n.srv.Kill()
		requester, device := n.openAs("ops", "deviceId=pump-1&target=ssh")
		go requester.Write(make([]byte, 10_001))
		go io.Copy(io.Discard, device)
		wantClose(t, requester, wire.ClosePolicy, wire.MaxBytes)
		synctest.Wait()

		first, atDevice := n.openAs("ops", "deviceId=pump-1&target=ssh")
		n.openAs("ops", "deviceId=pump-2&target=web")
		_, err := n.connectAs("ops", "deviceId=pump-3")
		if p := wantStatus(t, err, http.StatusTooManyRequests, wire.LimitReached); p.Detail != `"ops" has 2 of at most 2 bridges by rule "operators"` {
			t.Errorf("%s", p.Detail)
		}
		n.openAs("ops", "deviceId=valve-1&target=ssh") // by another rule
		time.Sleep(2 * time.Hour)
		wantClose(t, first, wire.ClosePolicy, wire.MaxDuration)
		wantClose(t, atDevice, wire.ClosePolicy, wire.MaxDuration)
		synctest.Wait()
		n.openAs("ops", "deviceId=pump-3")
	})
}

// A minute's connects may come at once, and then one each time that one fits again.
func TestConnectsPerMinute(t *testing.T) {
	inBubble(t, func(c *relay.Config) {
		c.Policy, c.Auth = mustPolicy(t, strings.ReplaceAll(rules, "bridges: 2, max_duration: 2h, max_bytes: 10KB", "connects_per_minute: 3")), byName()
	}, func(n *node) {
		defer n.srv.Kill()
		const query = "deviceId=pump-1&target=ssh"
		refused := func() {
			t.Helper()
			_, err := n.connectAs("ops", query)
			if p := wantStatus(t, err, http.StatusTooManyRequests, wire.LimitReached); p.Detail != `"ops" has made 3 connects within a minute by rule "operators"` {
				t.Error(p.Detail)
			}
		}
		for range 3 {
			n.openAs("ops", query)
		}
		refused()
		refused()
		time.Sleep(20 * time.Second)
		n.openAs("ops", query)
		refused()
		n.openAs("ops", "deviceId=valve-1&target=ssh") // by another rule
		time.Sleep(time.Hour)
		for range 3 {
			n.openAs("ops", query)
		}
		refused()
	})
}

// The URL's principal is judged by the rules for who asked for it, at both times.
func TestSignedPolicy(t *testing.T) {
	ask := func(n *node, name, query string) (int, string) {
		resp, body := n.askURL("GET", query+"&expirationUtc="+in1h, name)
		return resp.StatusCode, body
	}
	use := func(n *node, u string) error {
		done := make(chan error, 1)
		go func() {
			c, err := n.dialer().DialWebSocket(context.Background(), u, nil)
			if err == nil {
				c.CloseNow()
			}
			done <- err
		}()
		select {
		case s := <-n.signals:
			c, err := n.accept(s)
			if err != nil {
				return err
			}
			defer c.CloseNow()
			return <-done
		case err := <-done:
			return err
		}
	}
	var p *policy.Policy
	inBubble(t, func(c *relay.Config) {
		withPolicy(t, byName())(c)
		p = c.Policy
	}, func(n *node) {
		defer n.srv.Kill()
		if status, body := ask(n, "ops", "deviceId=tank-7&target=ssh"); status != http.StatusForbidden || !strings.Contains(body, "may not reach device") {
			t.Errorf("%d %s", status, body)
		}
		_, byName := ask(n, "ops", "deviceId=pump-7&target=ssh")
		if err := use(n, byName); err != nil {
			t.Error(err)
		}
		// By a claim, which is not known when the URL is used.
		_, byClaim := ask(n, "oidc:ann", "deviceId=pump-1&target=ssh")
		if p := wantStatus(t, use(n, byClaim), http.StatusForbidden, wire.Forbidden); p.Detail != `"signed:oidc:ann" may not reach device "pump-1"` {
			t.Error(p.Detail)
		}
		_, link := ask(n, "oidc:ann", "deviceId=tank-1&target=ssh")
		if err := use(n, link); err != nil {
			t.Error(err)
		}
		if err := p.Replace(strings.Replace(rules, "who: [ops]", "who: [bob]", 1)); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, use(n, byName), http.StatusForbidden, wire.Forbidden)
	})
}

// A reload ends what it does not allow any more, with Revoke, and nothing else.
func TestRevoke(t *testing.T) {
	for _, revoke := range []bool{true, false} {
		t.Run(fmt.Sprint(revoke), func(t *testing.T) {
			var p *policy.Policy
			inBubble(t, func(c *relay.Config) {
				withPolicy(t, byName())(c)
				p, c.Revoke = c.Policy, revoke
			}, func(n *node) {
				defer n.srv.Kill()
				requester, device := n.openAs("ops", "deviceId=pump-1&target=ssh")
				other, otherDevice := n.openAs("ops", "deviceId=valve-1&target=ssh")
				waits := make(chan dialed, 1)
				go func() {
					c, err := n.connectAs("ops", "deviceId=pump-2&target=web")
					waits <- dialed{c, err}
				}()
				<-n.signals
				n.srv.Recheck()
				echo(t, requester, device)

				if err := p.Replace(strings.Replace(rules, "who: [ops]", "who: [bob]", 1)); err != nil {
					t.Fatal(err)
				}
				n.srv.Recheck()
				echo(t, other, otherDevice)
				if !revoke {
					echo(t, requester, device)
					wantStatus(t, (<-waits).err, http.StatusGatewayTimeout, wire.DialBackTimeout)
					return
				}
				wantClose(t, device, wire.ClosePolicy, wire.PermissionRevoked)
				wantClose(t, requester, wire.ClosePolicy, wire.PermissionRevoked)
				if p := wantStatus(t, (<-waits).err, http.StatusForbidden, wire.PermissionRevoked); p.Detail != `"ops" may not reach device "pump-2"` {
					t.Error(p.Detail)
				}
				synctest.Wait()
				wantLog(t, n, `msg="permission revoked"`)
				wantLog(t, n, "reason=permission_revoked by=relay")
			})
		})
	}
}

// A bridge ends with the hours of its rule, unless another one lets it go on, and when a
// rule begins to deny it.
func TestHoursEnd(t *testing.T) {
	for _, tt := range []struct {
		name, more string
		reload     string        // what is in force an hour later
		ends       time.Duration // 0: it does not
	}{
		{"its rule's", "", "", 3 * time.Hour},
		{"another rule", "  - {name: more, who: [ann], devices: [valve-1], targets: [ssh], hours: {from: \"02:00\", to: \"05:00\", zone: UTC}}\n", "", 5 * time.Hour},
		{"without hours", "  - {name: more, who: [ann], devices: [valve-1], targets: [ssh]}\n", "", 0},
		{"a rule that denies", "  - {name: no, deny: true, who: [ann], devices: [\"*\"], targets: [\"*\"], hours: {from: \"02:00\", to: \"02:30\", zone: UTC}}\n", "", 2 * time.Hour},
		{"hours are longer by then", "", strings.Replace(rules, `"03:00"`, `"04:00"`, 1), 4 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(c *relay.Config) {
				c.Policy, c.Auth = mustPolicy(t, rules+tt.more), byName()
				if tt.reload != "" {
					time.AfterFunc(time.Hour, func() { c.Policy.Replace(tt.reload) })
				}
			}, func(n *node) {
				defer n.srv.Kill()
				began := time.Now()
				requester, device := n.openAs("ann", "deviceId=valve-1&target=ssh")
				go io.Copy(io.Discard, device)
				if tt.ends == 0 {
					time.Sleep(11 * time.Hour)
					echo(t, device, requester)
					return
				}
				wantClose(t, requester, wire.ClosePolicy, wire.PermissionRevoked)
				if took := time.Since(began).Round(time.Second); took != tt.ends {
					t.Errorf("ended after %v, want %v", took, tt.ends)
				}
			})
		})
	}
}

// Bridges of credentials that are gone or expire end, with Revoke.
func TestRevokeKey(t *testing.T) {
	const key = "wsb_opsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw"
	hash, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := auth.HashKey(auth.NewAPIKey())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, line string // in place of the key's, after 10 minutes
		keep       bool
		text       string
	}{
		{"gone", "", false, "the credentials have ended"},
		{"another key of its name", "ops " + other, false, "the credentials have ended"},
		{"other devices", "ops " + hash + " devices=valve-*", false, `"ops" may not reach device "pump-1"`},
		{"as it was", "ops " + hash, true, ""},
		{"another name", "oops " + hash, true, ""},
		{"expires", "ops " + hash + " expires=2000-01-01T01:00:00Z", false, "the credentials have ended"},
	} {
		for _, revoke := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, %t", tt.name, revoke), func(t *testing.T) {
				keys, err := auth.ParseKeys("ops " + hash)
				if err != nil {
					t.Fatal(err)
				}
				inBubble(t, func(c *relay.Config) { c.Auth, c.Revoke = keys, revoke }, func(n *node) {
					defer n.srv.Kill()
					requester, device := n.openAs(key, "deviceId=pump-1&target=ssh")
					go io.Copy(io.Discard, device)
					time.Sleep(10 * time.Minute)
					spare, err := auth.HashKey(auth.NewAPIKey())
					if err != nil {
						t.Fatal(err)
					}
					if err := keys.Replace("spare " + spare + "\n" + tt.line); err != nil {
						t.Fatal(err)
					}
					n.srv.Recheck()
					if tt.keep || !revoke {
						time.Sleep(2 * time.Hour)
						echo(t, device, requester)
						return
					}
					_, err = io.ReadAll(requester)
					if e, ok := err.(*ws.CloseError); !ok || e.Code != wire.ClosePolicy || e.Reason != "permission_revoked: "+tt.text {
						t.Errorf("got %v", err)
					}
				})
			})
		}
	}
}

// A signed URL's time is for connecting; the credentials of an identity provider have one
// for the bridge.
func TestRevokeExpires(t *testing.T) {
	inBubble(t, func(c *relay.Config) {
		c.Revoke = true
		c.Auth = byKey(t, func(p *auth.Principal) { p.Expires = time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC) })
	}, func(n *node) {
		defer n.srv.Kill()
		signed := n.sign("deviceId=pump-1&target=ssh&expirationUtc=2000-01-01T00:30:00Z")
		linked, linkedDevice := n.opened(func() (*ws.Conn, error) {
			return n.dialer().DialWebSocket(context.Background(), signed, nil)
		})
		requester, device := n.openAs("good", "deviceId=pump-1&target=ssh")
		go io.Copy(io.Discard, device)
		_, p, _ := n.canI("good", "deviceId=pump-1&target=ssh")
		if p.Until == nil || p.Until.Hour() != 1 {
			t.Errorf("%+v", p)
		}
		_, err := io.ReadAll(requester)
		if e, ok := err.(*ws.CloseError); !ok || e.Reason != "permission_revoked: the credentials have expired" {
			t.Errorf("got %v", err)
		}
		echo(t, linked, linkedDevice)
		if now := time.Now().UTC(); now.Hour() != 1 || now.Minute() != 0 {
			t.Errorf("it is %v", now)
		}
	})
}

// Whoever owns a bridge revokes it, also one whose device came to another node.
func TestRevokeOnOwner(t *testing.T) {
	p := mustPolicy(t, rules)
	inCity(t, 2, func(_ int, c *relay.Config) { c.Policy, c.Revoke, c.Auth = p, true, byName() }, func(c *city) {
		owner, reached := c.nodes[0], c.nodes[1]
		done := make(chan dialed, 1)
		go func() {
			conn, err := owner.connectAs("ops", "deviceId=pump-1&target=ssh")
			done <- dialed{conn, err}
		}()
		device, err := reached.accept(<-owner.signals)
		if err != nil {
			t.Fatal(err)
		}
		requester := (<-done).conn
		if err := p.Replace(strings.Replace(rules, "who: [ops]", "who: [bob]", 1)); err != nil {
			t.Fatal(err)
		}
		reached.srv.Recheck()
		echo(t, requester, device)
		owner.srv.Recheck()
		wantClose(t, requester, wire.ClosePolicy, wire.PermissionRevoked)
		wantClose(t, device, wire.ClosePolicy, wire.PermissionRevoked)
	})
}

// The list of bridges says by which rule.
func TestListRule(t *testing.T) {
	inBubble(t, withPolicy(t, byName()), func(n *node) {
		defer n.srv.Kill()
		n.openAs("ops", "deviceId=pump-1&target=ssh")
		var l struct{ Bridges []struct{ Rule string } }
		_, body := n.ask(http.MethodGet, wire.PathBridges)
		if err := json.Unmarshal([]byte(body), &l); err != nil || len(l.Bridges) != 1 || l.Bridges[0].Rule != "operators" {
			t.Errorf("%+v %v", l, err)
		}
	})
}
