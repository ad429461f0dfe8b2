package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/cluster"
	"websocketbridge/test/netfault"
)

// dialFunc is Config.Dial.
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func TestAskNoPeer(t *testing.T) {
	dialled := 0
	n := node(t, func(c *cluster.Config) {
		c.Dial = func(context.Context, string, string) (net.Conn, error) { dialled++; return nil, io.EOF }
	})
	for _, addr := range []string{"10.0.0.2:7443", "10.0.0.1:22", "169.254.169.254:80", "localhost:7443", ""} {
		if _, err := n.Ask(t.Context(), addr, accept(t)); !errors.Is(err, cluster.ErrNotPeer) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if dialled > 0 {
		t.Errorf("dialled %d times", dialled)
	}
}

func TestAskUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			dial dialFunc
			want string
			took time.Duration
		}{
			"refused": {func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }, "connection refused", 0},
			"black hole": {func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}, "no proof within 3s", cluster.DefaultDialTimeout},
		} {
			n := node(t, func(cfg *cluster.Config) { cfg.Dial = c.dial })
			began := time.Now()
			_, err := n.Ask(t.Context(), ownerAddr, accept(t))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ownerAddr) || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took != c.took {
				t.Errorf("%s: took %v", name, took)
			}
		}
	})
}

// against has a node ask whoever do plays, over TLS or not, and returns what do's end
// got besides what do has read.
func against(t *testing.T, c *tls.Config, ctx context.Context, do func(c net.Conn)) (a *cluster.Answer, got []byte, err error) {
	t.Helper()
	near, far := net.Pipe()
	n := node(t, func(cfg *cluster.Config) {
		cfg.TLS = c
		cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return near, nil }
	})
	var other sync.WaitGroup
	other.Go(func() {
		defer far.Close()
		conn := far
		if c != nil {
			conn = tls.Server(far, c)
		}
		do(conn)
		got, _ = io.ReadAll(conn)
	})
	a, err = n.Ask(ctx, ownerAddr, accept(t))
	if err != nil {
		if _, err := near.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the connection is still open: %v", err)
		}
	} else if a.Status == http.StatusSwitchingProtocols {
		a.Close()
	}
	other.Wait()
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("the token is in the error: %v", err)
	}
	return a, got, err
}

// A stranger at a peer's address never sees the request.
func TestAskStranger(t *testing.T) {
	for name, do := range map[string]func(net.Conn){
		"silence":     func(net.Conn) {},
		"hangs up":    func(c net.Conn) { c.Read(make([]byte, 1)); c.Close() },
		"garbage":     func(c net.Conn) { c.Write([]byte(strings.Repeat("garbage ", 100))) },
		"an echo":     func(c net.Conn) { io.Copy(c, c) },
		"a short one": func(c net.Conn) { io.ReadFull(c, make([]byte, cluster.HelloSize)); c.Write([]byte("SSH-2.0\r\n")) },
		"HTTP": func(c net.Conn) {
			io.ReadFull(c, make([]byte, cluster.HelloSize))
			c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Filler: for the length\r\n\r\n"))
		},
		"other keys": func(c net.Conn) { cluster.Challenge(c, ring(t, 2), nonce('o')) },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, c *tls.Config) {
				began := time.Now()
				_, got, err := against(t, c, t.Context(), do)
				if !errors.Is(err, cluster.ErrProof) {
					t.Error(err)
				}
				if took := time.Since(began); took > cluster.DefaultDialTimeout {
					t.Errorf("took %v", took)
				}
				if bytes.Contains(got, []byte("GET")) || bytes.Contains(got, []byte(secret)) || len(got) > cluster.HelloSize {
					t.Errorf("the stranger got %q", got)
				}
			})
		})
	}
}

// peer proves itself and reads the request before it does what it does.
func peer(t *testing.T, do func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if err := cluster.Challenge(c, ring(t, 1), nonce('o')); err != nil {
			return
		}
		b := make([]byte, 0, 1000)
		for !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
			n, err := c.Read(b[len(b):cap(b)])
			if b = b[:len(b)+n]; err != nil {
				return
			}
		}
		if !bytes.HasPrefix(b, []byte("GET /bridge/accept?bridgeToken="+secret+" HTTP/1.1\r\nHost: "+ownAddr+"\r\n")) || !bytes.Contains(b, []byte("\r\nBridge-Node: "+ownAddr+"\r\n")) {
			t.Errorf("the request is %q", b)
		}
		do(c)
	}
}

func TestAskAnswers(t *testing.T) {
	says := func(format string, args ...any) func(net.Conn) {
		return func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 "+format, args...); c.Close() }
	}
	full := strings.Repeat("x", cluster.MaxAnswer)
	for name, c := range map[string]struct {
		do     func(net.Conn)
		status int
		body   int
		want   string // of the error
	}{
		"no body":                     {says("204 No Content\r\n\r\n"), 204, 0, ""},
		"a body":                      {says("410 Gone\r\nContent-Length: 3\r\n\r\nabc"), 410, 3, ""},
		"a body in chunks":            {says("410 Gone\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), 410, 3, ""},
		"a body to the end":           {says("410 Gone\r\n\r\nabc"), 410, 3, ""},
		"the largest body":            {says("200 OK\r\n\r\n%s", full), 200, cluster.MaxAnswer, ""},
		"too large":                   {says("200 OK\r\n\r\n%sx", full), 0, 0, "more than 16777216 bytes"},
		"too large, and says so":      {says("200 OK\r\nContent-Length: %d\r\n\r\n%sx", cluster.MaxAnswer+1, full), 0, 0, "more than 16777216 bytes"},
		"too large a chunk":           {says("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%sx\r\n", cluster.MaxAnswer+1, full), 0, 0, "more than 16777216 bytes"},
		"an endless head":             {says("200 OK\r\n%s", strings.Repeat("X-Filler: x\r\n", cluster.MaxAnswerHead/13+1)), 0, 0, "head has more than 65536 bytes"},
		"an endless line":             {says("200 OK\r\nX: %s", full), 0, 0, "head has more than 65536 bytes"},
		"cut short":                   {says("200 OK\r\nContent-Length: 4\r\n\r\nabc"), 0, 0, "unexpected EOF"},
		"cut in the head":             {says("200 OK\r\nContent-"), 0, 0, "read answer"},
		"no HTTP":                     {says("abc\r\n\r\n"), 0, 0, "read answer"},
		"an answer before the answer": {says("100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), 0, 0, "answered 100"},
		"nothing":                     {func(c net.Conn) { c.Close() }, 0, 0, "EOF"},
		"silence":                     {func(c net.Conn) {}, 0, 0, "no answer within 5s"},
		"half a body, and silence":    {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc") }, 0, 0, "no answer within 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, cfg *tls.Config) {
				if cfg != nil && (c.body == cluster.MaxAnswer || strings.Contains(c.want, "16777216")) {
					return // megabytes through TLS, and nothing new
				}
				began := time.Now()
				a, _, err := against(t, cfg, t.Context(), peer(t, c.do))
				switch took := time.Since(began); {
				case took > cluster.AnswerTimeout:
					t.Errorf("took %v", took)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ownerAddr)):
					t.Errorf("got %v, want %s", err, c.want)
				case c.want == "" && (err != nil || a.Status != c.status || len(a.Body) != c.body):
					t.Errorf("got %v, %v", a, err)
				}
			})
		})
	}
}

// A 101 to a request that asked for none is no open connection that somebody has to close.
func TestAskUnaskedUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := netfault.NewListener()
		serve(t, node(t, nil), mem, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusSwitchingProtocols) })
		r := accept(t)
		r.Header = make(http.Header)
		_, err := node(t, func(c *cluster.Config) { c.Dial = mem.Dial }).Ask(t.Context(), ownerAddr, r)
		if err == nil || !strings.Contains(err.Error(), "answered 101") {
			t.Error(err)
		}
		if len(r.Header) > 0 || r.URL.Host != "" {
			t.Error("the caller's request was changed")
		}
	})
}

// An upgrade whose owner speaks at once loses nothing.
func TestAskUpgrade(t *testing.T) {
	both(t, func(t *testing.T, c *tls.Config) {
		mem := netfault.NewListener()
		serve(t, node(t, withTLS(c)), mem, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello, ")
			io.WriteString(conn, "device")
			conn.Close()
		})
		a, err := node(t, func(cfg *cluster.Config) { cfg.TLS, cfg.Dial = c, mem.Dial }).Ask(t.Context(), ownerAddr, accept(t))
		if err != nil || a.Status != http.StatusSwitchingProtocols || a.Header.Get("Upgrade") != "websocket" {
			t.Fatal(a, err)
		}
		time.Sleep(time.Minute) // the deadlines of asking are over
		device, side := net.Pipe()
		var joined sync.WaitGroup
		joined.Go(func() {
			if toDevice, _ := a.Join(t.Context(), side, nil); toDevice != 13 {
				t.Errorf("%d bytes", toDevice)
			}
		})
		if got, err := io.ReadAll(device); string(got) != "hello, device" {
			t.Errorf("the device got %q, %v", got, err)
		}
		joined.Wait()
	})
}

// Whatever a node waits for, it stops when nobody waits for it any more.
func TestAskCancelled(t *testing.T) {
	stall := func(net.Conn) {}
	for name, do := range map[string]func(t *testing.T) func(net.Conn){
		"dial":      nil, // below
		"hello":     nil,
		"challenge": func(*testing.T) func(net.Conn) { return stall },
		"answer": func(t *testing.T) func(net.Conn) {
			return func(c net.Conn) { cluster.Challenge(c, ring(t, 1), nonce('o')) }
		},
		"head": func(t *testing.T) func(net.Conn) { return peer(t, stall) },
		"body": func(t *testing.T) func(net.Conn) {
			return peer(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, c *tls.Config) {
				gone := errors.New("the device is gone")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(gone) })
				began := time.Now()
				var err error
				switch name {
				case "dial":
					_, err = node(t, func(cfg *cluster.Config) {
						cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
					}).Ask(ctx, ownerAddr, accept(t))
				case "hello":
					_, _, err = against(t, c, ctx, func(net.Conn) { <-ctx.Done() })
				default:
					_, _, err = against(t, c, ctx, do(t))
				}
				if !errors.Is(err, gone) {
					t.Error(err)
				}
				if took := time.Since(began); took != time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// faulty fails its nth read or write.
type faulty struct {
	net.Conn
	reads, writes int
}

var errFaulty = errors.New("faulty")

func (f *faulty) Read(p []byte) (int, error) {
	if f.reads--; f.reads == 0 {
		return 0, errFaulty
	}
	return f.Conn.Read(p)
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.writes--; f.writes == 0 {
		return 0, errFaulty
	}
	return f.Conn.Write(p)
}

func TestAskFaults(t *testing.T) {
	both(t, func(t *testing.T, c *tls.Config) {
		for _, reads := range []bool{true, false} {
			for nth := 1; ; nth++ {
				mem := netfault.NewListener()
				serve(t, node(t, withTLS(c)), mem, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusGone) })
				n := node(t, func(cfg *cluster.Config) {
					cfg.TLS = c
					cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						conn, err := mem.Dial(ctx, network, addr)
						if reads {
							return &faulty{Conn: conn, reads: nth}, err
						}
						return &faulty{Conn: conn, writes: nth}, err
					}
				})
				a, err := n.Ask(t.Context(), ownerAddr, accept(t))
				if err == nil && a.Status == http.StatusGone {
					if nth < 3 {
						t.Errorf("only %d times", nth)
					}
					break
				}
				if !errors.Is(err, errFaulty) {
					t.Errorf("reads: %t, %d: %v", reads, nth, err)
				}
				if _, err := mem.Last().Conn.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("reads: %t, %d: still open", reads, nth)
				}
			}
		}
	})
}
