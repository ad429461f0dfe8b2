package cluster_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/cluster"
	"websocketbridge/test/netfault"
)

// both runs a test inside a bubble without TLS and with.
func both(t *testing.T, test func(t *testing.T, c *tls.Config)) {
	t.Run("plain", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, nil) }) })
	t.Run("TLS", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, selfTLS(t)) }) })
}

// nodePort is an owner's, in memory, and an honest node.
type nodePort struct {
	*netfault.Listener
	honest *cluster.Node
	asked  atomic.Int32
	book   logBook
}

func newNodePort(t *testing.T, c *tls.Config, below func(net.Listener) net.Listener) *nodePort {
	p := &nodePort{Listener: netfault.NewListener()}
	owner := node(t, func(cfg *cluster.Config) { cfg.TLS, cfg.Logger = c, p.book.logger() })
	var ln net.Listener = p.Listener
	if below != nil {
		ln = below(ln)
	}
	serve(t, owner, ln, func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		w.WriteHeader(http.StatusGone)
	})
	p.honest = node(t, func(cfg *cluster.Config) {
		cfg.TLS, cfg.Dial, cfg.DialTimeout = c, p.Dial, cluster.MaxDialTimeout
	})
	return p
}

func (p *nodePort) ask(t *testing.T) {
	t.Helper()
	if a, err := p.honest.Ask(t.Context(), ownerAddr, accept(t)); err != nil || a.Status != http.StatusGone {
		t.Errorf("an honest node: %v, %v", a, err)
	}
}

func TestListenStrangers(t *testing.T) {
	request := "GET /bridge/accept?bridgeToken=" + secret + " HTTP/1.1\r\nHost: relay\r\n\r\n"
	for name, c := range map[string]struct {
		do     func(c net.Conn)
		silent bool // in the log
	}{
		"silence":      {do: func(c net.Conn) {}},
		"garbage":      {do: func(c net.Conn) { c.Write([]byte(strings.Repeat("garbage ", 1000))) }},
		"HTTP":         {do: func(c net.Conn) { c.Write([]byte(request)) }},
		"a short word": {do: func(c net.Conn) { c.Write([]byte("wsb")) }},
		"hello alone":  {do: func(c net.Conn) { c.Write(append([]byte(cluster.Magic), nonce('d')...)); io.ReadAll(c) }},
		"no key": {do: func(c net.Conn) {
			c.Write(append([]byte(cluster.Magic), nonce('d')...))
			io.ReadFull(c, make([]byte, cluster.ChallengeSize))
			c.Write(append(make([]byte, cluster.AnswerSize), request...))
		}},
		"slow bytes": {do: func(c net.Conn) {
			for _, b := range append([]byte(cluster.Magic), nonce('d')...) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		"a knock": {do: func(c net.Conn) { c.Close() }, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, cfg *tls.Config) {
				p := newNodePort(t, cfg, nil)
				conn, err := p.Dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var stranger sync.WaitGroup
				stranger.Go(func() { c.do(conn) })
				synctest.Wait()
				p.ask(t)
				if took := time.Since(began); took > 0 {
					t.Errorf("the stranger held up an honest node for %v", took)
				}
				io.Copy(io.Discard, conn)
				if took := time.Since(began); took > cluster.ProofTimeout {
					t.Errorf("closed after %v", took)
				}
				conn.Close()
				stranger.Wait()
				synctest.Wait()
				if n := p.asked.Load(); n != 1 {
					t.Errorf("%d requests were served", n)
				}
				log := p.book.String()
				if (log == "") != c.silent {
					t.Errorf("log: %q", log)
				}
				if strings.Contains(log, secret) || strings.Contains(log, "garbage") || strings.Count(log, "\n") > 1 {
					t.Errorf("log: %q", log)
				}
			})
		})
	}
}

// Many silent strangers do not delay a node: the oldest of them goes.
func TestListenManyStrangers(t *testing.T) {
	both(t, func(t *testing.T, c *tls.Config) {
		p := newNodePort(t, c, nil)
		began := time.Now()
		var first net.Conn
		for i := range cluster.MaxProving {
			c, err := p.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = c
			}
		}
		p.ask(t)
		if _, err := first.Read(make([]byte, 1)); err == nil {
			t.Error("the oldest stranger is still there")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("an honest node got through after %v", took)
		}
	})
}

func TestListenClose(t *testing.T) {
	both(t, func(t *testing.T, c *tls.Config) {
		mem := netfault.NewListener()
		n := node(t, func(cfg *cluster.Config) { cfg.TLS, cfg.Dial = c, mem.Dial })
		l := n.Listen(mem)
		silent, err := mem.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		// One that is handed out, and one that has proven itself when nobody asks for it.
		asked := make(chan error, 2)
		ask := func() { _, err := n.Ask(t.Context(), ownerAddr, accept(t)); asked <- err }
		go ask()
		handed, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go ask()
		synctest.Wait()
		began := time.Now()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("Close took %v", took)
		}
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("a stranger's connection outlives Close")
		}
		if err := <-asked; err == nil {
			t.Error("a connection that nobody got outlives Close")
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		if _, err := io.ReadAtLeast(handed, make([]byte, 1000), 30); err != nil {
			t.Errorf("one that was handed out: %v", err)
		}
		handed.Close()
		<-asked
		l.Close() // again
	})
}

// broken fails so often before it accepts.
type broken struct {
	net.Listener
	fails int
}

func (b *broken) Accept() (net.Conn, error) {
	if b.fails--; b.fails >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return b.Listener.Accept()
}

func TestListenAcceptErrors(t *testing.T) {
	both(t, func(t *testing.T, c *tls.Config) {
		const fails = 7
		began := time.Now()
		p := newNodePort(t, c, func(ln net.Listener) net.Listener { return &broken{ln, fails} })
		p.ask(t)
		if took := time.Since(began); took != fails*cluster.AcceptRetry {
			t.Errorf("took %v", took)
		}
		if log := p.book.String(); strings.Count(log, "node port: accept") != fails {
			t.Errorf("log: %s", log)
		}
	})
	t.Run("Close meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := node(t, nil).Listen(&broken{netfault.NewListener(), 1000})
			synctest.Wait()
			l.Close()
		})
	})
}

// A listener that somebody else closes ends ours, and all that it has started.
func TestListenClosedBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := netfault.NewListener()
		l := node(t, nil).Listen(mem)
		if _, err := mem.Dial(t.Context(), "", ""); err != nil {
			t.Fatal(err)
		}
		mem.Close()
		began := time.Now()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}
