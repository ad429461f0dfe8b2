package relay_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/audit"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/wire"
)

// ledger is an Auditor in memory that can be full.
type ledger struct {
	mu   sync.Mutex // guards all
	all  []audit.Record
	err  error // of Err
	full bool  // Record fails where it may
}

func (l *ledger) Record(_ context.Context, r audit.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full && (r.Event == audit.Opened || r.Event == audit.SignedURLMade) {
		return fmt.Errorf("%w: a test", audit.ErrNotKept)
	}
	l.all = append(l.all, r)
	return nil
}

func (l *ledger) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *ledger) set(full bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full, l.err = full, err
}

// lines are what was recorded so far, without what differs from run to run.
func (l *ledger) lines() (out []string) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.all {
		s := fmt.Sprint(r.Event)
		for _, f := range []string{r.Principal, r.Method, r.DeviceID, strings.Join(r.Targets, "+"), r.Decision, r.Path, r.Code, r.By, r.Via} {
			if f != "" {
				s += " " + f
			}
		}
		if r.Bytes != nil {
			s += fmt.Sprintf(" %d/%d", r.ToDevice, r.ToRequester)
		}
		out = append(out, s)
	}
	return out
}

func (l *ledger) want(t *testing.T, want ...string) {
	t.Helper()
	if got := l.lines(); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// opsKeys knows one key, which may reach ssh and web on pump-*.
func opsKeys(t *testing.T) (string, *auth.Keys) {
	t.Helper()
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.ParseKeys("ops " + hash + " devices=pump-* targets=ssh,web")
	if err != nil {
		t.Fatal(err)
	}
	return key, keys
}

func (n *node) connectWith(key, query string) error {
	c, err := n.dialer().DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?"+query, http.Header{wire.HeaderAPIKey: {key}})
	if err == nil {
		n.t.Cleanup(func() { c.Close() })
	}
	return err
}

func TestAudit(t *testing.T) {
	log := new(ledger)
	key, keys := opsKeys(t)
	inBubble(t, func(c *relay.Config) { c.Audit, c.Auth = log, keys }, func(n *node) {
		want := []string{"started"}
		add := func(lines ...string) {
			t.Helper()
			want = append(want, lines...)
			log.want(t, want...)
		}
		add()
		wantStatus(t, n.connectWith("wrong", "deviceId=pump-7&target=ssh"), 401, wire.Unauthenticated)
		add("refused pump-7 ssh deny /bridge/connect unauthenticated")
		wantStatus(t, n.connectWith(key, "deviceId=mill&target=ssh"), 403, wire.Forbidden)
		add("refused ops api-key mill ssh deny /bridge/connect forbidden")
		wantStatus(t, n.connectWith(key, "deviceId="), 400, wire.BadRequest)
		add("refused /bridge/connect bad_request")
		go func() { n.reject(<-n.signals, `{"code":"busy","message":"no"}`) }()
		wantStatus(t, n.connectWith(key, "deviceId=pump-7&target=ssh"), 409, wire.DeviceRefused)
		add("refused ops api-key pump-7 ssh allow /bridge/connect device_refused")

		done := make(chan dialed, 1)
		go func() {
			c, err := n.dialer().DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connect?deviceId=pump-7&target=ssh,web", http.Header{wire.HeaderAPIKey: {key}})
			done <- dialed{c, err}
		}()
		sig := <-n.signals
		device, err := n.accept(sig)
		if err != nil {
			t.Fatal(err)
		}
		got := <-done
		add("opened ops api-key pump-7 ssh+web allow")
		_, err = n.accept(sig)
		wantStatus(t, err, 410, wire.BridgeGone)
		add("refused pump-7 /bridge/accept bridge_gone")
		echo(t, got.conn, device)
		if status, body := n.ask(http.MethodDelete, wire.PathBridges+"/"+sig.BridgeID); status != http.StatusNoContent {
			t.Fatal(status, body)
		}
		wantClose(t, got.conn, wire.ClosePolicy, wire.Killed)
		device.Close()
		add("killed ops api-key pump-7 ssh+web killed", "closed ops api-key pump-7 ssh+web allow killed relay 5/0")

		for query, line := range map[string]string{
			"deviceId=pump-7&target=web&expirationUtc=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): "signed_url_made ops api-key pump-7 web allow",
			"deviceId=mill&target=web&expirationUtc=2000-01-01T00:00:00Z":                                      "refused ops api-key mill web deny /bridge/getSignedUrl forbidden",
		} {
			r, err := http.NewRequest(http.MethodGet, "http://relay.test/front/bridge/getSignedUrl?"+query, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set(wire.HeaderAPIKey, key)
			resp, err := n.httpClient().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			add(line)
		}
		_, err = n.dialer().DialWebSocket(context.Background(), "ws://relay.test/front/bridge/connectSigned?deviceId=pump-7&expirationUtc=2000-01-01T00:00:00.0000000Z&principal=ops&signature=AQ", nil)
		wantStatus(t, err, 400, wire.BadRequest)
		add("refused pump-7 /bridge/connectSigned bad_request")
		_, err = n.dialer().DialWebSocket(context.Background(), "ws://relay.test/front/bridge/accept?bridgeToken=x", nil)
		wantStatus(t, err, 400, wire.BadToken)
		add("refused /bridge/accept bad_token")
	})
	if got := log.all[len(log.all)-1]; got.Event != audit.Stopped {
		t.Errorf("the last event is %s", got.Event)
	}
	for _, r := range log.all {
		bridge := r.Event == audit.Opened || r.Event == audit.Closed || r.Event == audit.Killed || r.Path == wire.PathConnect
		if bridge && r.BridgeID == "" || r.Event != audit.Started && r.Event != audit.Stopped && r.From == "" || r.Event == audit.Opened && r.Start.IsZero() ||
			r.Event == audit.Closed && r.End.IsZero() || r.Event == audit.SignedURLMade && r.Expires.IsZero() {
			t.Errorf("something is missing: %+v", r)
		}
	}
}

// A bridge that cannot have a line is not made: not begun if that is known, and closed
// before it carries anything if it turns out as it opens. What is open goes on.
func TestAuditFails(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprint("early ", early), func(t *testing.T) {
			log := new(ledger)
			inBubble(t, func(c *relay.Config) { c.Audit = log }, func(n *node) {
				refused := func(query string) {
					t.Helper()
					if early {
						c, err := n.connect(context.Background(), query+"&upgrade=early")
						if err != nil {
							t.Fatal(err)
						}
						wantClose(t, c, 4503, wire.AuditFailed)
						return
					}
					_, err := n.connect(context.Background(), query)
					if p := wantStatus(t, err, 503, wire.AuditFailed); p.Hint == "" || p.RetryAfter != 1 {
						t.Errorf("%+v", p)
					}
				}
				requester, device := n.open("deviceId=d")
				log.set(true, nil)
				deviceSaw := make(chan string, 1)
				go func() {
					c, err := n.accept(<-n.signals)
					if err != nil {
						t.Error(err)
						return
					}
					deviceSaw <- wantClose(t, c, wire.CloseInternal, wire.AuditFailed)
				}()
				refused("deviceId=d")
				if got := <-deviceSaw; got != "" {
					t.Errorf("the device got %q", got)
				}
				log.set(true, fmt.Errorf("%w: a test", audit.ErrNotKept))
				refused("deviceId=d")
				select {
				case <-n.signals:
					t.Error("the device was told")
				default:
				}
				if status, _ := n.ask(http.MethodGet, wire.PathReadyz); status != http.StatusServiceUnavailable {
					t.Errorf("readyz answers %d", status)
				}
				echo(t, requester, device)
				log.set(false, nil)
				if status, _ := n.ask(http.MethodGet, wire.PathReadyz); status != http.StatusOK {
					t.Errorf("readyz answers %d", status)
				}
				requester.Close()
				device.Close()
				log.want(t, "started", "opened anonymous none d allow", "refused anonymous none d allow /bridge/connect audit_failed",
					"refused anonymous none d allow /bridge/connect audit_failed", "closed anonymous none d allow done requester 5/0")
			})
		})
	}
}

// The owner has the line of a kill, with who asked which node.
func TestAuditKillOverNodes(t *testing.T) {
	logs := []*ledger{new(ledger), new(ledger)}
	var town *city
	inCity(t, 0, nil, func(c *city) {
		town = c
		c.change = func(i int, cfg *relay.Config) {
			named(town, i, cfg)
			cfg.Audit = logs[i]
		}
		for i := range logs {
			c.add(i)
		}
		for i := range logs {
			c.start(i)
		}
		requester, device := c.open(0, 1, "deviceId=d")
		id := c.nodes[1].list(wire.PathBridges).Bridges[0].BridgeID
		if status, body := c.nodes[1].ask(http.MethodDelete, wire.PathBridges+"/"+id); status != http.StatusNoContent {
			t.Fatal(status, body)
		}
		wantClose(t, requester, wire.ClosePolicy, wire.Killed)
		device.Close()
		logs[1].want(t, "started")
		via := c.places[1].addr
		logs[0].want(t, "started", "opened anonymous none d allow "+via, "killed anonymous none d killed "+via, "closed anonymous none d allow killed relay "+via+" 0/0")
		if from := logs[0].all[2].From; from != "192.0.2.1:1234" { // httptest's
			t.Errorf("killed from %s", from)
		}
	})
}
