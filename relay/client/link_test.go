package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/wire"
	"websocketbridge/relay/ws"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/netfault"
)

// A running is a Link whose Run runs.
type running struct {
	*client.Link
	events chan client.Event
	ran    chan error
	cancel context.CancelFunc
}

func (l *lab) link(persist bool) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{events: make(chan client.Event, 1000), ran: make(chan error, 1), cancel: cancel}
	r.Link = client.NewLink(l.client, request("x"), persist, func(e client.Event) { r.events <- e })
	go func() { r.ran <- r.Run(ctx) }()
	return r
}

// up waits until a session is there; events before that are returned.
func (r *running) up(t *testing.T) (before []client.Event) {
	t.Helper()
	for {
		e := r.event(t)
		if e.Session != nil {
			return before
		}
		before = append(before, e)
	}
}

// event is the next one. Those from before Run's end come before its end.
func (r *running) event(t *testing.T) client.Event {
	t.Helper()
	select {
	case e := <-r.events:
		return e
	case err := <-r.ran:
		select {
		case e := <-r.events:
			r.ran <- err
			return e
		default:
			t.Fatalf("Run ended: %v", err)
			panic("unreachable")
		}
	}
}

// stop ends Run, which is no error.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := <-r.ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestLinkShares(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		r := l.link(false)
		defer r.stop(t)
		var users sync.WaitGroup
		for range 50 { // most of them before there is a session
			users.Go(func() {
				st, err := r.Open(context.Background(), "x")
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, st)
				st.Close()
			})
		}
		users.Wait()
		if n := l.signals.Load(); n != 1 {
			t.Errorf("%d signals", n)
		}
	})
}

// A session that is lost is had again; who opens in between waits.
func TestLinkRedials(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		r := l.link(false)
		defer r.stop(t)
		r.up(t)
		for i := range 5 {
			st, err := r.Open(context.Background(), "x")
			if err != nil {
				t.Fatal(err)
			}
			(<-devices).Close()
			if _, err := io.ReadAll(st); err == nil {
				t.Error("the stream took a cut for an end")
			}
			st.Close()
			start := time.Now()
			if st, err = r.Open(context.Background(), "x"); err != nil {
				t.Fatal(err)
			}
			if most := time.Second << i; time.Since(start) > most {
				t.Errorf("again after %v", time.Since(start))
			}
			exchange(t, st)
			st.Close()
			var gone *session.GoAwayError
			if lost := r.up(t); len(lost) != 1 || lost[0].Retry == 0 || !errors.As(lost[0].Err, &gone) {
				t.Errorf("events %+v", lost)
			}
		}
		// A session that lasted makes the next wait a short one again.
		time.Sleep(2 * time.Minute)
		(<-devices).Close()
		if lost := r.up(t); len(lost) != 1 || lost[0].Retry > time.Second {
			t.Errorf("events %+v", lost)
		}
	})
}

func TestLinkBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{client: says("HTTP/1.1 503 x\r\n\r\n")}
		r := l.link(true)
		last := time.Now()
		var sum time.Duration
		seen := make(map[time.Duration]bool)
		for i := range 200 {
			e := <-r.events
			if since := time.Since(last); i > 0 && since > 60*time.Second {
				t.Errorf("try %d after %v", i, since)
			}
			last = time.Now()
			most := min(time.Second<<min(i, 6), time.Minute)
			if e.Err == nil || e.Retry <= 0 || e.Retry > most {
				t.Fatalf("try %d: %+v, at most %v", i, e, most)
			}
			sum += e.Retry
			seen[e.Retry] = true
		}
		if sum < 60*time.Minute || sum > 140*time.Minute || len(seen) < 190 {
			t.Errorf("%v and %d different waits in 200 tries", sum, len(seen))
		}
		r.stop(t)
	})
}

func TestLinkRetryAfter(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		if err := l.hub.SetFaults(fake.Faults{Error: fake.Throttled, RetryAfter: 90 * time.Second}); err != nil {
			t.Fatal(err)
		}
		r := l.link(true)
		defer r.stop(t)
		for range 2 {
			if e := <-r.events; e.Retry < 90*time.Second || e.Retry > 93*time.Second {
				t.Errorf("got %+v", e)
			}
		}
		if err := l.hub.SetFaults(fake.Faults{}); err != nil {
			t.Fatal(err)
		}
		r.up(t)
	})
}

// A proxy that asks for a day is not believed, and a relay that answers nothing is
// not waited for without end.
func TestLinkImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{client: says("HTTP/1.1 503 x\r\nRetry-After: 86400\r\n\r\n")}
		r := l.link(true)
		if e := <-r.events; e.Retry < 10*time.Minute || e.Retry > 11*time.Minute {
			t.Errorf("got %+v", e)
		}
		r.stop(t)
		silent := make(chan struct{})
		l.client = answers(func(net.Conn, *http.Request) { <-silent })
		r = l.link(true)
		start := time.Now()
		if e := <-r.events; e.Err == nil || e.Err.Error() != "dial relay.test: no answer within 2m0s" || time.Since(start) != 2*time.Minute {
			t.Errorf("got %+v after %v", e, time.Since(start))
		}
		r.stop(t)
		close(silent)
	})
}

// What answers instead of the relay later on is waited out, unless it is a no.
func TestLinkStrangers(t *testing.T) {
	for status, ends := range map[string]bool{
		"200 OK": false, "302 Found": false, "404 Not Found": false, "408 Request Timeout": false, "421 Misdirected Request": false, "500 Oh": false,
		"502 Bad Gateway": false, "503 Service Unavailable": false, "504 Gateway Timeout": false, "401 Unauthorized": true, "403 Forbidden": true,
	} {
		t.Run(status, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, l *lab) {
				devices := make(chan *session.Session, 2)
				l.session = func(s *session.Session) { devices <- s }
				var stranger atomic.Bool
				relayDial, strangerDial := l.dialer.Dial, says("HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n").Dialer.Dial
				l.client.Dialer.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if stranger.Load() {
						return strangerDial(ctx, network, addr)
					}
					return relayDial(ctx, network, addr)
				}
				r := l.link(false)
				r.up(t)
				stranger.Store(true)
				(<-devices).Close()
				time.Sleep(time.Minute)
				if ends {
					if err := <-r.ran; err == nil {
						t.Error("Run ended without an error")
					}
					r.cancel()
					return
				}
				stranger.Store(false)
				if tries := r.up(t); len(tries) < 3 {
					t.Errorf("%d tries", len(tries))
				}
				r.stop(t)
			})
		})
	}
}

// A drain is not the fault of the session: the next try is soon, even if the one
// before took many.
func TestLinkAfterDrain(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		r := l.link(false)
		defer r.stop(t)
		r.up(t)
		for range 3 {
			l.srv.Kill()
			l.stopRelay()
			e := <-r.events
			if e.Moving != nil { // the node may say so first
				e = <-r.events
			}
			if e.Err == nil || e.Retry > time.Second {
				t.Errorf("lost: %+v", e)
			}
			time.Sleep(2 * time.Minute)
			l.restart()
			if tries := r.up(t); len(tries) < 3 {
				t.Errorf("%d tries", len(tries))
			}
		}
	})
}

// To dial again would undo what an operator did.
func TestLinkKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		killed := ws.AppendControl(nil, ws.OpClose, ws.AppendClose(nil, wire.ClosePolicy, "killed: by ops"), false, [4]byte{})
		l := &lab{client: answers(func(c net.Conn, r *http.Request) { upgrade(c, r, killed) })}
		r := l.link(true)
		r.up(t)
		wantError(t, <-r.ran, wire.Killed)
		if e := <-r.events; e.Err == nil || e.Retry != 0 {
			t.Errorf("got %+v", e)
		}
		r.cancel()
	})
}

// What ends Run, and what a Link that has ended says.
func TestLinkEnds(t *testing.T) {
	for _, tt := range []struct {
		name         string
		persist, was bool // was: there was a session before
		fault        func(l *lab)
		ends         bool
	}{
		{"typo", true, false, func(l *lab) { l.client.URL = "relay.test" }, true},
		{"refused for good", true, true, func(l *lab) { l.refuse = refusing("target_not_allowed") }, true},
		{"refused for now", false, true, func(l *lab) { l.refuse = refusing("limit_reached") }, false},
		{"refused for now, at first", false, false, func(l *lab) { l.refuse = refusing("limit_reached") }, true},
		{"unknown", true, true, func(l *lab) { l.hub.SetFaults(fake.Faults{Error: fake.NotFound}) }, true},
		{"offline at first", false, false, func(l *lab) { l.goneOffline() }, true},
		{"offline at first, waited for", true, false, func(l *lab) { l.goneOffline() }, false},
		{"offline later", false, true, func(l *lab) { l.goneOffline() }, false},
		{"relay away later", false, true, func(l *lab) { l.stopRelay() }, false},
		{"no session", true, true, func(l *lab) { l.stream, l.session = nil, nil }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, l *lab) {
				devices := make(chan *session.Session, 1)
				l.session = func(s *session.Session) { devices <- s }
				if !tt.was {
					tt.fault(l)
				}
				r := l.link(tt.persist)
				if tt.was {
					r.up(t)
					s := <-devices
					tt.fault(l)
					s.Close()
				}
				waits := make(chan error, 1)
				go func() {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
					defer cancel()
					_, err := r.Open(ctx, "x")
					waits <- err
				}()
				time.Sleep(10 * time.Minute)
				err := <-waits
				if !tt.ends {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Open: %v", err)
					}
					r.stop(t)
					if _, err := r.Open(context.Background(), "x"); !errors.Is(err, context.Canceled) {
						t.Errorf("Open, after the end: %v", err)
					}
					return
				}
				ran := <-r.ran
				if ran == nil || !errors.Is(err, ran) || err.Error() != `no session to device "pump-7": `+ran.Error() {
					t.Errorf("Run: %v, Open: %v", ran, err)
				}
				for e := (client.Event{Retry: 1}); e.Retry != 0 || e.Session != nil; { // the last one says that there is no next try
					select {
					case e = <-r.events:
					default:
						t.Fatal("no event says that it is over")
					}
				}
				r.cancel()
			})
		})
	}
}

func refusing(code string) func(*signaler.Signal) *signaler.Refusal {
	return func(*signaler.Signal) *signaler.Refusal { return &signaler.Refusal{Code: code, Message: "no"} }
}

// A device that takes no more streams keeps those it has; new ones go to a new
// session.
func TestLinkGoAway(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		r := l.link(false)
		old, err := r.Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		first := <-devices
		first.GoAway("", "an update")
		synctest.Wait()
		var users sync.WaitGroup
		for range 5 {
			users.Go(func() {
				st, err := r.Open(context.Background(), "x")
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, st)
				st.Close()
			})
		}
		users.Wait()
		exchange(t, old)
		old.Close()
		if n := l.signals.Load(); n != 2 {
			t.Errorf("%d signals", n)
		}
		r.stop(t) // and both sessions with it
		<-first.Done()
		<-(<-devices).Done()
	})
}

// A session that ends while Open waits for its answer is waited for again; a no
// is a no.
func TestLinkOpen(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		devices := make(chan *session.Session, 10)
		l.session = func(s *session.Session) { devices <- s }
		echo := l.stream
		asked := make(chan struct{}, 10)
		l.stream = func(target string, in *session.Incoming) {
			asked <- struct{}{}
			switch target {
			case "refused":
				in.Refuse("dial_failed", "connection refused")
			case "first hangs":
				if l.signals.Load() > 1 {
					echo(target, in)
				}
			}
		}
		r := l.link(false)
		defer r.stop(t)
		var refused *session.OpenError
		if _, err := r.Open(context.Background(), "refused"); !errors.As(err, &refused) || refused.Code != "dial_failed" {
			t.Errorf("got %v", err)
		}
		<-asked
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, errors.New("enough"))
		defer cancel()
		if _, err := r.Open(ctx, "hangs"); err == nil || err.Error() != `session: open "hangs": enough` {
			t.Errorf("got %v", err)
		}
		<-asked
		go func() {
			<-asked
			(<-devices).Close()
		}()
		st, err := r.Open(context.Background(), "first hangs")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, st)
		st.Close()
		if n := l.signals.Load(); n != 2 {
			t.Errorf("%d signals", n)
		}
	})
}

// A relay that restarts under a Link, as in a deployment: only the streams notice.
func TestLinkRelayRestarts(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, l *lab) {
		r := l.link(false)
		defer r.stop(t)
		r.up(t)
		for range 3 {
			st, err := r.Open(context.Background(), "x")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, st)
			l.srv.Kill()
			if _, err := st.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("the stream ends with %v", err)
			}
			st.Close()
			l.stopRelay()
			l.restart()
			lost := r.up(t)
			e := wantError(t, lost[0].Err, wire.Draining)
			if e.Close != wire.CloseRestart || !e.Temporary() {
				t.Errorf("got %+v", e)
			}
		}
	})
}

// restart makes a new node at the old one's address.
func (l *lab) restart() {
	l.t.Helper()
	l.mem.Close()
	mem := netfault.NewListener()
	srv, err := relay.New(relay.Config{PublicURL: "ws://relay.test", Auth: auth.AllowAll{}, Keys: mustRing(l.t), Drain: -1, Signaler: l.hub})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.node = &node{Listener: mem}
	l.work.Go(func() { srv.Run(ctx, relay.Listeners{Public: l.node}) })
	l.address.Store(mem)
	l.mem, l.srv, l.stopRelay = mem, srv, cancel
}

// Credentials are asked for at each dial. An error of theirs that passes is waited out; one
// that only a person can mend ends the link.
func TestLinkCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string // by the relay
		l := newLab(t, true, func(c *relay.Config) {
			c.Auth = authFunc(func(r *http.Request) (*auth.Principal, error) {
				seen = append(seen, r.Header.Get("Authorization")+" "+r.Header.Get("X-Extra"))
				return auth.AllowAll{}.Authenticate(r)
			})
		})
		defer l.stop()
		away := errors.New("the issuer is away")
		asked := 0
		l.client.Header = http.Header{"X-Extra": {"kept"}}
		l.client.Credentials = func(context.Context) (http.Header, error) {
			switch asked++; asked {
			case 3:
				return nil, away
			case 5:
				return nil, fmt.Errorf("refused: %w", client.ErrSignIn)
			}
			return http.Header{"Authorization": {fmt.Sprintf("Bearer %d", asked)}}, nil
		}
		var retried []error
		link := client.NewLink(l.client, client.Request{Device: device, Targets: []string{"echo"}}, false, func(e client.Event) {
			if e.Session != nil {
				go e.Session.Close() // lost, at once
			}
			if e.Session == nil && e.Retry > 0 {
				retried = append(retried, e.Err)
			}
		})
		err := link.Run(t.Context())
		if !errors.Is(err, client.ErrSignIn) || !errors.As(err, new(*client.CredentialsError)) {
			t.Errorf("ended with %v", err)
		}
		if want := []string{"Bearer 1 kept", "Bearer 2 kept", "Bearer 4 kept"}; !slices.Equal(seen, want) {
			t.Errorf("the relay saw %q, want %q", seen, want)
		}
		if !slices.ContainsFunc(retried, func(err error) bool { return errors.Is(err, away) }) {
			t.Errorf("retried after %v", retried)
		}
		if len(l.client.Header) != 1 {
			t.Error("the configuration's header was changed")
		}
	})
}

type authFunc func(*http.Request) (*auth.Principal, error)

func (f authFunc) Authenticate(r *http.Request) (*auth.Principal, error) { return f(r) }
