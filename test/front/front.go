package front

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config of a Front.
type Config struct {
	Backends []string // host:port, to begin with; SetBackends replaces them

	// Ready says whether a backend takes connections; nil: all do. Several are asked
	// at once, each again and again. One that was not asked yet is taken for ready.
	Ready func(ctx context.Context, backend string) bool
	Every time.Duration // from an answer of Ready to the next question; 0: 250 ms
	Wait  time.Duration // for an answer of Ready, and for a backend to accept; 0: 1 s

	Logger *slog.Logger // nil: silent
}

// A Front hands connections on.
type Front struct {
	cfg Config
	log *slog.Logger

	mu       sync.Mutex // guards the five below
	backends []*backend
	next     int           // index of the backend whose turn it is
	changed  chan struct{} // closed by SetBackends
	conns    map[net.Conn]struct{}
	over     bool // what comes now is closed
}

type backend struct {
	addr   string
	ready  bool // guarded by Front.mu, as served is
	served int
}

// New starts nothing.
func New(cfg Config) *Front {
	cfg.Every = cmp.Or(cfg.Every, 250*time.Millisecond)
	cfg.Wait = cmp.Or(cfg.Wait, time.Second)
	f := &Front{cfg: cfg, log: cfg.Logger, changed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.SetBackends(cfg.Backends)
	return f
}

// SetBackends replaces the backends. Connections that there are stay.
func (f *Front) SetBackends(addrs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var now []*backend
	for _, addr := range addrs {
		b := &backend{addr: addr, ready: true}
		if i := slices.IndexFunc(f.backends, func(b *backend) bool { return b.addr == addr }); i >= 0 {
			b = f.backends[i] // what is known of it
		}
		now = append(now, b)
	}
	f.backends, f.next = now, 0
	close(f.changed)
	f.changed = make(chan struct{})
}

// Served is how many connections each backend was given.
func (f *Front) Served() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	served := make(map[string]int)
	for _, b := range f.backends {
		served[b.addr] = b.served
	}
	return served
}

// Run hands on what comes in by l until ctx ends, and closes l. Then it ends
// every connection, and returns when the last of its goroutines has.
func (f *Front) Run(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		l.Close()
		f.closeAll()
	})
	defer stop()
	if f.cfg.Ready != nil {
		wg.Go(func() { f.watch(ctx) })
	}
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case err != nil:
			l.Close()
			f.closeAll()
			return err
		}
		wg.Go(func() { f.serve(ctx, c) })
	}
}

// watch asks the backends for as long as they are the backends.
func (f *Front) watch(ctx context.Context) {
	for ctx.Err() == nil {
		f.mu.Lock()
		backends, changed := f.backends, f.changed
		f.mu.Unlock()
		asked, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for _, b := range backends {
			wg.Go(func() { f.ask(asked, b) })
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		cancel()
		wg.Wait()
	}
}

// ask keeps b.ready what Ready says.
func (f *Front) ask(ctx context.Context, b *backend) {
	pause := time.NewTicker(f.cfg.Every)
	defer pause.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, f.cfg.Wait)
		ready := f.cfg.Ready(one, b.addr)
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		news := b.ready != ready
		b.ready = ready
		f.mu.Unlock()
		if news {
			f.log.Info("backend", "address", b.addr, "ready", ready)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// turn is the next backend that is ready and was not tried; nil: there is none.
func (f *Front) turn(tried []*backend) *backend {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.backends {
		b := f.backends[(f.next+i)%len(f.backends)]
		if b.ready && !slices.Contains(tried, b) {
			f.next = (f.next + i + 1) % len(f.backends)
			return b
		}
	}
	return nil
}

// serve hands one connection on. Without a backend it is reset: an end could be
// taken for an answer.
func (f *Front) serve(ctx context.Context, c net.Conn) {
	if !f.keep(c) {
		return
	}
	defer f.drop(c)
	var tried []*backend
	for {
		b := f.turn(tried)
		if b == nil {
			f.log.Warn("no backend", "from", c.RemoteAddr().String(), "tried", len(tried))
			reset(c)
			return
		}
		tried = append(tried, b)
		d := net.Dialer{Timeout: f.cfg.Wait}
		to, err := d.DialContext(ctx, "tcp", b.addr)
		if err != nil {
			f.log.Info("backend passed over", "address", b.addr, "error", err)
			continue
		}
		if !f.keep(to) {
			return
		}
		defer f.drop(to)
		f.mu.Lock()
		b.served++
		f.mu.Unlock()
		join(c, to)
		return
	}
}

// join copies both ways until both have ended, or one of them was cut.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { pass(a, b) })
	pass(b, a)
	wg.Wait()
}

func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err == nil {
		if half, ok := to.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			return
		}
	}
	reset(to)
	reset(from)
}

// reset closes c so that its peer sees a cut and not an end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// keep remembers c, so that closeAll finds it; false: it was too late, and c is
// closed.
func (f *Front) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		c.Close()
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *Front) drop(c net.Conn) {
	c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

func (f *Front) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for c := range f.conns {
		reset(c)
	}
}

// Readyz is a Config.Ready that asks a URL for each backend, and takes 200 for
// yes. url gives it, such as http://10.0.0.1:9090/readyz. Each question is a
// connection of its own.
func Readyz(url func(backend string) string) func(ctx context.Context, backend string) bool {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("moved") },
	}
	return func(ctx context.Context, backend string) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(backend), nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}
