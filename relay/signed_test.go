package relay_test

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
)

const in1h = "2000-01-01T01:00:00Z" // a bubble's time begins with the year 2000

// byKey lets ops reach ssh, web and the default target of pump-*, with a key.
func byKey(t *testing.T, change func(p *auth.Principal)) authFunc {
	globs := func(list ...string) (all []auth.Glob) {
		for _, s := range list {
			g, err := auth.ParseGlob(s)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, g)
		}
		return append(all, auth.Glob{})
	}
	return func(r *http.Request) (*auth.Principal, error) {
		switch r.Header.Get(wire.HeaderAPIKey) {
		case "":
			return nil, auth.ErrNoCredentials
		case "good":
		default:
			return nil, auth.ErrBadCredentials
		}
		p := &auth.Principal{Name: "ops", Method: auth.MethodAPIKey, Grants: []auth.Grant{{Devices: globs("pump-*"), Targets: globs("ssh", "web")}}}
		if change != nil {
			change(p)
		}
		return p, nil
	}
}

// askURL asks a node for a signed URL.
func (n *node) askURL(method, query, key string, header ...string) (*http.Response, string) {
	n.t.Helper()
	req, err := http.NewRequest(method, "http://relay.test/front/bridge/getSignedUrl?"+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set(wire.HeaderAPIKey, key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := n.httpClient().Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	if got := resp.Header.Get("Referrer-Policy"); got != "no-referrer" {
		n.t.Errorf("Referrer-Policy %q", got)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		n.t.Errorf("Cache-Control %q", got)
	}
	return resp, string(body)
}

// sign is askURL where it works.
func (n *node) sign(query string) string {
	n.t.Helper()
	resp, body := n.askURL("GET", query, "good")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		n.t.Fatalf("got %d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	if !strings.HasPrefix(body, "ws://relay.test/front/bridge/connectSigned?") || strings.ContainsAny(body, " \n") {
		n.t.Fatalf("got %q", body)
	}
	return body
}

// use dials a signed URL, lets the device come and leave.
func (n *node) use(signed string, header http.Header, subprotocols ...string) (*ws.Conn, error) {
	n.t.Helper()
	done := make(chan dialed, 1)
	go func() {
		c, err := n.dialer().DialWebSocket(context.Background(), signed, header, subprotocols...)
		done <- dialed{c, err}
	}()
	select {
	case s := <-n.signals:
		if s.Principal != "signed:ops" {
			n.t.Errorf("the signal says %q", s.Principal)
		}
		device, err := n.accept(s, subprotocols...)
		if err != nil {
			n.t.Fatal(err)
		}
		got := <-done
		if got.err != nil {
			return nil, got.err
		}
		echo(n.t, got.conn, device)
		go device.Close()
		return got.conn, nil
	case got := <-done:
		return got.conn, got.err
	}
}

func wantUse(t *testing.T, n *node, signed string) {
	t.Helper()
	c, err := n.use(signed, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClose(t, c, wire.CloseNormal, "")
}

func wantNoUse(t *testing.T, n *node, signed string, code wire.Code, detail string) {
	t.Helper()
	_, err := n.use(signed, nil)
	if p := wantStatus(t, err, code.Row().Status, code); !strings.Contains(p.Detail, detail) {
		t.Errorf("detail %q, want %q in it", p.Detail, detail)
	}
}

func TestSignedURL(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Auth = byKey(t, nil) }, func(n *node) {
		signed := n.sign("deviceId=pump-7&requestData=a%26b+c&target=ssh,web&expirationUtc=" + in1h)
		done := make(chan dialed, 1)
		go func() {
			c, err := n.dialer().DialWebSocket(context.Background(), signed, nil, "v2", "v1")
			done <- dialed{c, err}
		}()
		s := <-n.signals
		if s.DeviceID != "pump-7" || s.RequestData != "a&b c" || s.Target != "ssh,web" || s.Principal != "signed:ops" || strings.Join(s.Subprotocols, " ") != "v2 v1" {
			t.Errorf("signal %+v", s)
		}
		list := httptest.NewRecorder()
		n.srv.AdminHandler().ServeHTTP(list, httptest.NewRequest("GET", "/bridges?local", nil))
		if !strings.Contains(list.Body.String(), `"principal":"signed:ops"`) {
			t.Errorf("list %s", list.Body)
		}
		device, err := n.accept(s, "v1")
		got := <-done
		if err != nil || got.err != nil {
			t.Fatal(err, got.err)
		}
		if got.conn.Subprotocol() != "v1" {
			t.Errorf("subprotocol %q", got.conn.Subprotocol())
		}
		go device.Close()
		wantClose(t, got.conn, wire.CloseNormal, "")
		wantUse(t, n, signed) // again

		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		log := n.log.String()
		for _, want := range []string{`msg="signed URL made" device=pump-7 principal=ops target=ssh,web`, "expires=" + in1h, "principal=signed:ops"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
		for _, secret := range []string{u.Query().Get("signature"), "signature=", "a&b"} {
			if strings.Contains(log, secret) {
				t.Errorf("the log has %q:\n%s", secret, log)
			}
		}
	})
}

// A page of any site, which is who cannot send a key.
func TestSignedURLInABrowser(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Auth = byKey(t, nil) }, func(n *node) {
		signed := n.sign("deviceId=pump-7&expirationUtc=" + in1h)
		page := http.Header{"Origin": {"https://plant.example"}}
		held, err := n.use(signed, page, "v1")
		if err != nil {
			t.Fatal(err)
		}
		wantClose(t, held, wire.CloseNormal, "")
		early, err := n.dialer().DialWebSocket(context.Background(), signed+"&upgrade=early", page, "v1")
		if err != nil {
			t.Fatal(err)
		}
		device, err := n.accept(<-n.signals, "v1")
		if err != nil {
			t.Fatal(err)
		}
		if held.Subprotocol() != "v1" || early.Subprotocol() != "v1" {
			t.Errorf("subprotocols %q and %q", held.Subprotocol(), early.Subprotocol())
		}
		echo(t, early, device)
		go device.Close()
		wantClose(t, early, wire.CloseNormal, "")
		// The page's site is no reason to let others in, either.
		_, err = n.dialer().DialWebSocket(context.Background(), "ws://relay.test/bridge/connect?deviceId=pump-7",
			http.Header{"Origin": {"https://plant.example"}, wire.HeaderAPIKey: {"good"}})
		wantStatus(t, err, http.StatusForbidden, wire.Forbidden)
	})
}

// Whatever is changed, missing or there twice: no device hears of it.
func TestSignedURLChanged(t *testing.T) {
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	del := func(name string) func(url.Values) { return func(q url.Values) { q.Del(name) } }
	twice := func(name string) func(url.Values) {
		return func(q url.Values) { q[name] = append(q[name], q[name]...) }
	}
	inBubble(t, func(c *relay.Config) { c.Auth = byKey(t, nil) }, func(n *node) {
		signed := n.sign("deviceId=pump-7&requestData=data&target=ssh&expirationUtc=" + in1h)
		bare := n.sign("deviceId=pump-7&expirationUtc=" + in1h)
		base, query, _ := strings.Cut(signed, "?")
		_, bareQuery, _ := strings.Cut(bare, "?")
		parse := func(query string) url.Values {
			q, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			return q
		}
		other := parse(bareQuery).Get("signature")
		good := parse(query).Get("signature")
		for _, tt := range []struct {
			name   string
			change func(q url.Values)
			code   wire.Code
			detail string
		}{
			{"no device", del("deviceId"), wire.BadRequest, "deviceId is missing"},
			{"no target", del("target"), wire.BadSignature, ""},
			{"no data", del("requestData"), wire.BadSignature, ""},
			{"no expiration", del("expirationUtc"), wire.BadRequest, "expirationUtc is missing"},
			{"no principal", del("principal"), wire.BadRequest, "principal is missing"},
			{"no signature", del("signature"), wire.BadRequest, "signature is missing"},
			{"empty signature", set("signature", ""), wire.BadRequest, "signature is missing"},
			{"another device", set("deviceId", "pump-8"), wire.BadSignature, ""},
			{"another target", set("target", "web"), wire.BadSignature, ""},
			{"one target more", set("target", "ssh,web"), wire.BadSignature, ""},
			{"other data", set("requestData", "Data"), wire.BadSignature, ""},
			{"longer", set("expirationUtc", "2000-01-01T02:00:00.0000000Z"), wire.BadSignature, ""},
			{"by one tick", set("expirationUtc", "2000-01-01T01:00:00.0000001Z"), wire.BadSignature, ""},
			{"the same time otherwise", set("expirationUtc", in1h), wire.BadSignature, ""},
			{"no time", set("expirationUtc", "tomorrow"), wire.BadRequest, "no time in UTC"},
			{"another principal", set("principal", "root"), wire.BadSignature, ""},
			{"another URL's signature", set("signature", other), wire.BadSignature, ""},
			{"cut", set("signature", good[:len(good)-1]), wire.BadRequest, "signature is cut or changed"},
			{"padded", set("signature", good+"="), wire.BadRequest, "signature is cut or changed"},
			{"with a line's end", set("signature", good[:8]+"\n"+good[8:]), wire.BadRequest, "signature is cut or changed"},
			{"another version", set("signature", "Ag"+good[2:]), wire.BadSignature, ""},
			{"another key's", set("signature", good[:4]+"AAAA"+good[8:]), wire.BadSignature, ""},
			{"device twice", twice("deviceId"), wire.BadRequest, "deviceId is there 2 times"},
			{"target twice", twice("target"), wire.BadRequest, "target is there 2 times"},
			{"data twice", twice("requestData"), wire.BadRequest, "requestData is there 2 times"},
			{"expiration twice", twice("expirationUtc"), wire.BadRequest, "expirationUtc is there 2 times"},
			{"principal twice", twice("principal"), wire.BadRequest, "principal is there 2 times"},
			{"signature twice", twice("signature"), wire.BadRequest, "signature is there 2 times"},
			{"upgraded otherwise", set("upgrade", "late"), wire.BadRequest, "upgrade"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				q := parse(query)
				tt.change(q)
				wantNoUse(t, n, base+"?"+q.Encode(), tt.code, tt.detail)
				if tt.name == "upgraded otherwise" {
					return
				}
				c, err := n.use(base+"?"+q.Encode()+"&upgrade=early", nil)
				if err != nil {
					t.Fatal(err)
				}
				wantClose(t, c, tt.code.Row().Close, tt.code)
			})
		}
		// A key does not make it good.
		_, err := n.dialer().DialWebSocket(context.Background(), strings.Replace(signed, "pump-7", "pump-8", 1), http.Header{wire.HeaderAPIKey: {"good"}})
		wantStatus(t, err, http.StatusBadRequest, wire.BadSignature)
		if len(n.signals) > 0 {
			t.Error("a device was signalled")
		}
		// What software on the way may do to any URL changes nothing.
		q := parse(query)
		for _, same := range []string{
			query + "&utm_source=mail",
			"signature=" + good + "&principal=%6Fps&expirationUtc=" + q.Get("expirationUtc") + "&target=ssh&requestData=dat%61&deviceId=pump%2d7",
			bareQuery + "&target=&requestData=",
		} {
			wantUse(t, n, base+"?"+same)
		}
		// It is for connecting only.
		if resp, body := n.askURL("GET", query, ""); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a signed URL makes another: %d %s", resp.StatusCode, body)
		}
		_, err = n.connect(context.Background(), query)
		wantStatus(t, err, http.StatusUnauthorized, wire.Unauthenticated)
	})
}

// Who gets a URL, and for how long.
func TestGetSignedURL(t *testing.T) {
	keyEnds := func(at time.Duration) func(*relay.Config) {
		return func(c *relay.Config) {
			c.Auth = byKey(t, func(p *auth.Principal) { p.Expires = time.Now().Add(at) })
		}
	}
	const ok = "deviceId=pump-7&target=ssh&expirationUtc="
	for _, tt := range []struct {
		name, query, key string
		change           func(*relay.Config)
		method           string
		header           []string
		code             wire.Code // empty: it works
		want             string    // in the detail, or the URL's expirationUtc
	}{
		{name: "RFC 3339", query: ok + in1h, want: "2000-01-01T01:00:00.0000000Z"},
		{name: ".NET's round-trip form", query: ok + "2000-01-01T01:00:00.1234567Z", want: "2000-01-01T01:00:00.1234567Z"},
		{name: "JavaScript's", query: ok + "2000-01-01T01:00:00.120Z", want: "2000-01-01T01:00:00.1200000Z"},
		{name: "finer than .NET's", query: ok + "2000-01-01T01:00:00.123456789Z", want: "2000-01-01T01:00:00.1234567Z"},
		{name: "another zone", query: ok + "2000-01-01T03:30:00%2B02:30", want: "2000-01-01T01:00:00.0000000Z"},
		{name: "the longest", query: ok + "2000-01-02T00:00:00Z", want: "2000-01-02T00:00:00.0000000Z"},
		{name: "longer", query: ok + "2000-01-02T00:00:00.0000001Z", code: wire.BadRequest, want: "within 24h0m0s from now, which is 2000-01-01T00:00:00Z here"},
		{name: "much longer", query: ok + "9999-12-31T23:59:59Z", code: wire.BadRequest, want: "within 24h0m0s"},
		{name: "longer than set", query: ok + in1h, change: func(c *relay.Config) { c.MaxSignedTTL = 59 * time.Minute }, code: wire.BadRequest, want: "within 59m0s"},
		{name: "now", query: ok + "2000-01-01T00:00:00Z", code: wire.BadRequest, want: "within 24h0m0s"},
		{name: "the shortest", query: ok + "2000-01-01T00:00:00.0000001Z", want: "2000-01-01T00:00:00.0000001Z"},
		{name: "past", query: ok + "1999-12-31T23:59:59Z", code: wire.BadRequest, want: "within 24h0m0s"},
		{name: "long past", query: ok + "0001-01-01T00:00:00Z", code: wire.BadRequest, want: "within 24h0m0s"},
		{name: "no zone", query: ok + "2000-01-01T01:00:00", code: wire.BadRequest, want: "such as 2027-01-31T00:00:00Z"},
		{name: "seconds", query: ok + "946688400", code: wire.BadRequest, want: "no time in UTC"},
		{name: "no expiration", query: "deviceId=pump-7&target=ssh", code: wire.BadRequest, want: "expirationUtc is missing"},
		{name: "empty expiration", query: ok, code: wire.BadRequest, want: "expirationUtc is missing"},
		{name: "two expirations", query: ok + in1h + "&expirationUtc=" + in1h, code: wire.BadRequest, want: "there 2 times"},
		{name: "with the key's last moment", query: ok + in1h, change: keyEnds(time.Hour), want: "2000-01-01T01:00:00.0000000Z"},
		{name: "longer than the key", query: ok + in1h, change: keyEnds(time.Hour - time.Second), code: wire.BadRequest, want: "later than the credentials expire, 2000-01-01T00:59:59Z"},
		{name: "no device", query: "expirationUtc=" + in1h, code: wire.BadRequest, want: "deviceId is missing"},
		{name: "two devices", query: ok + in1h + "&deviceId=pump-8", code: wire.BadRequest, want: "deviceId is there 2 times"},
		{name: "too much data", query: ok + in1h + "&requestData=" + strings.Repeat("x", 2049), code: wire.BadRequest, want: "2049 bytes"},
		{name: "broken query", query: ok + in1h + "&x=%zz", code: wire.BadRequest, want: "the query is malformed"},
		{name: "no key", query: ok + in1h, key: "none", code: wire.Unauthenticated},
		{name: "wrong key", query: ok + in1h, key: "wrong", code: wire.Unauthenticated},
		{name: "another device", query: "deviceId=valve-1&expirationUtc=" + in1h, code: wire.Forbidden, want: `device "valve-1"`},
		{name: "another target", query: "deviceId=pump-7&target=ssh,plc&expirationUtc=" + in1h, code: wire.Forbidden, want: `target "plc"`},
		{name: "another site's page", query: ok + in1h, header: []string{"Origin", "https://evil.example"}, code: wire.Forbidden, want: "another site"},
		{name: "switched off", query: ok + in1h, change: func(c *relay.Config) { c.MaxSignedTTL = -1 }, code: wire.Forbidden, want: "no signed URLs"},
		{name: "post", query: ok + in1h, method: "POST", code: wire.MethodNotAllowed},
		{name: "a name too long", query: ok + in1h, change: func(c *relay.Config) {
			c.Auth = byKey(t, func(p *auth.Principal) { p.Name = strings.Repeat("n", 257) })
		}, code: wire.Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(c *relay.Config) {
				c.Auth = byKey(t, nil)
				if tt.change != nil {
					tt.change(c)
				}
			}, func(n *node) {
				key := map[string]string{"": "good", "none": "", "wrong": "wrong"}[tt.key]
				resp, body := n.askURL(cmp.Or(tt.method, "GET"), tt.query, key, tt.header...)
				if tt.code == "" {
					u, err := url.Parse(body)
					if err != nil || resp.StatusCode != http.StatusOK || u.Query().Get("expirationUtc") != tt.want {
						t.Errorf("got %d %s, %v, want %s", resp.StatusCode, body, err, tt.want)
					}
					return
				}
				p, err := wire.ParseProblem([]byte(body))
				if err != nil || resp.StatusCode != tt.code.Row().Status || p.Code != tt.code || !strings.Contains(p.Detail, tt.want) {
					t.Errorf("got %d %+v, %v, want %s with %q", resp.StatusCode, p, err, tt.code, tt.want)
				}
				if tt.code == wire.MethodNotAllowed && resp.Header.Get("Allow") != "GET" {
					t.Error("no Allow header")
				}
				if !strings.Contains(n.log.String(), `msg="signed URL refused"`) {
					t.Errorf("log:\n%s", n.log)
				}
			})
		})
	}
}

// A URL works until the instant it names, and a bridge that is open then lives on.
func TestSignedURLExpires(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Auth = byKey(t, nil) }, func(n *node) {
		ends := time.Now().Add(time.Hour)
		signed := n.sign("deviceId=pump-7&expirationUtc=" + in1h)
		time.Sleep(time.Until(ends) - 1)
		wantUse(t, n, signed)
		done := make(chan dialed, 1)
		go func() {
			c, err := n.dialer().DialWebSocket(context.Background(), signed, nil)
			done <- dialed{c, err}
		}()
		s := <-n.signals
		time.Sleep(time.Until(ends))
		wantNoUse(t, n, signed, wire.BadSignature, "the signed URL has expired")
		device, err := n.accept(s)
		got := <-done
		if err != nil || got.err != nil {
			t.Fatal(err, got.err)
		}
		time.Sleep(time.Hour)
		echo(t, got.conn, device)
		go device.Close()
		wantClose(t, got.conn, wire.CloseNormal, "")
		// That it is over is said of what was good once.
		wantNoUse(t, n, strings.Replace(signed, "pump-7", "pump-8", 1), wire.BadSignature, "")
	})
}

// Any node takes what another has signed, for as long as it has the key.
func TestSignedURLOnAnyNode(t *testing.T) {
	withKey := func(c *relay.Config) { c.Auth = byKey(t, nil) }
	inBubble(t, withKey, func(n *node) {
		signed := n.sign("deviceId=pump-7&target=ssh&expirationUtc=" + in1h)
		own, theirs := token.NewKey(), token.NewKey()
		foreign, err := token.NewRing(theirs)
		if err != nil {
			t.Fatal(err)
		}
		second, stranger := startNode(n.t, n.ring, nil, withKey), startNode(n.t, foreign, nil, withKey)
		without := startNode(n.t, n.ring, nil, func(c *relay.Config) {
			withKey(c)
			c.MaxSignedTTL = -1
		})
		defer second.end()
		defer stranger.end()
		defer without.end()

		wantUse(t, second, signed)
		wantUse(t, n, second.sign("deviceId=pump-7&expirationUtc="+in1h))
		wantNoUse(t, stranger, signed, wire.BadSignature, "")
		wantNoUse(t, without, signed, wire.Forbidden, "no signed URLs")
		if log := stranger.log.String(); !strings.Contains(log, "unknown key ID") {
			t.Errorf("the log does not say why:\n%s", log)
		}

		// A node that has the key, if only as its second one, takes it.
		if err := foreign.Replace(own, theirs); err != nil {
			t.Fatal(err)
		}
		rotated := stranger.sign("deviceId=pump-7&expirationUtc=" + in1h)
		wantNoUse(t, second, rotated, wire.BadSignature, "")
		if err := n.ring.Replace(theirs, own); err != nil { // of both first nodes
			t.Fatal(err)
		}
		wantUse(t, second, rotated)
		wantNoUse(t, n, signed, wire.BadSignature, "") // its key is gone
	})
}
