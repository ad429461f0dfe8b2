//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/test/process"
)

// What is measured, by the names of the report.
const (
	ours         = "ours"
	oursTLS      = "ours, TLS"
	other        = "other build" // of -against
	otherTLS     = "other build, TLS"
	chainSplice  = "raw TCP splice ×3"
	chainFrames  = "WebSocket frames ×3"
	chainTLS     = "WebSocket frames ×3, TLS"
	oneForwarder = "one forwarder" // the middle of chainFrames
	plainTCP     = "TCP"
)

// deviceID of the one device that there is.
const deviceID = "bench"

// The programs of a chain, in order.
const (
	partProxy = "proxy" // bridge tunnel
	partRelay = "relay"
	partAgent = "agent"
)

// programs by their part in a chain.
type programs map[string]*process.Process

// A chain is three programs, and where the user dials the first.
type chain struct {
	name  string
	addr  string
	hub   string // of ours: where the fake hub listens
	parts programs
	path  *process.Process // delays what the agent, or the target, gets; nil: nothing does
	wait  time.Duration    // for the end
}

func (c *chain) stop() {
	for _, p := range []string{partProxy, partAgent, partRelay} { // in the order in which none of them misses another
		if c.parts[p] != nil {
			c.parts[p].Stop(c.wait)
		}
	}
	if c.path != nil {
		c.path.Stop(c.wait)
	}
}

// A lab starts chains, and ends them.
type lab struct {
	dir     string // of programs, keys, and what programs say
	against string // of the other build's programs; empty: there is none
	self    string // this program
	cert    certificate
	apiKey  string
	keys    string // file of its hash
	target  *target
	started int
	chains  map[string]*chain // that are kept for all figures, by name, and perhaps round trip
	all     []*chain
}

// newLab builds our three programs.
func newLab(ctx context.Context, against string) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, against: against, self: self, chains: make(map[string]*chain), apiKey: auth.NewAPIKey(), keys: filepath.Join(dir, "api-keys")}
	if err := l.prepare(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) prepare(ctx context.Context) (err error) {
	if err := process.Build(ctx, l.dir, "websocketbridge/relay/cmd/relay", "websocketbridge/relay/cmd/bridge", "websocketbridge/deviceagent/cmd/deviceagent"); err != nil {
		return err
	}
	if l.cert, err = makeCertificate(l.dir); err != nil {
		return err
	}
	hash, err := auth.HashKey(l.apiKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.keys, []byte("bench "+hash+"\n"), 0o600); err != nil {
		return err
	}
	l.target, err = newTarget()
	return err
}

// close ends everything that the lab has started, and removes its files.
func (l *lab) close() {
	for _, c := range slices.Backward(l.all) {
		c.stop()
	}
	if l.target != nil {
		l.target.close()
	}
	os.RemoveAll(l.dir)
}

// start starts a program. Its output is in a file of the lab.
func (l *lab) start(path string, env []string, args ...string) (*process.Process, error) {
	l.started++
	return process.Start(process.Config{
		Path: path, Args: args, Env: env,
		Output: filepath.Join(l.dir, fmt.Sprintf("out-%d-%s", l.started, filepath.Base(path))),
	})
}

// kept is the chain of that name, started by whoever asks first.
func (l *lab) kept(ctx context.Context, name string) (*chain, error) {
	if c := l.chains[name]; c != nil {
		return c, nil
	}
	c, err := l.fresh(ctx, name)
	if err == nil {
		l.chains[name] = c
	}
	return c, err
}

// startTime is for a program to say that it is ready.
const startTime = 20 * time.Second

// fresh starts a chain of that name.
func (l *lab) fresh(ctx context.Context, name string) (*chain, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c := &chain{name: name, parts: make(programs), wait: time.Second}
	l.all = append(l.all, c)
	var err error
	switch name {
	case ours, oursTLS, other, otherTLS:
		err = l.startOurs(ctx, c, oursConfig{secure: secure(name), tunnel: true})
	case chainSplice:
		err = l.startReference(ctx, c, false, kindSplice, kindSplice, kindSplice)
	case chainFrames, chainTLS:
		err = l.startReference(ctx, c, secure(name), kindProxy, kindRelay, kindAgent)
	default:
		err = fmt.Errorf("no chain is called %q", name)
	}
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// startReference starts the hops of a chain, the last one first: each has to know the
// next one's address.
func (l *lab) startReference(ctx context.Context, c *chain, secure bool, kinds ...string) error {
	c.addr = l.target.addr()
	parts := []string{partProxy, partRelay, partAgent}
	for i, kind := range slices.Backward(kinds) {
		h := hop{Kind: kind, Next: c.addr}
		if secure {
			h.Cert, h.Key, h.CA = l.cert.cert, l.cert.key, l.cert.cert
		}
		p, addr, err := l.startHop(ctx, h)
		if err != nil {
			return err
		}
		c.parts[parts[i]], c.addr = p, addr
	}
	return nil
}

// hopArgument in front of a hop's description makes this program that hop.
const hopArgument = "run-hop"

// startHop runs this program again as a hop, and returns its address.
func (l *lab) startHop(ctx context.Context, h hop) (*process.Process, string, error) {
	spec, err := json.Marshal(h)
	if err != nil {
		return nil, "", err
	}
	p, err := l.start(l.self, nil, hopArgument, string(spec))
	if err != nil {
		return nil, "", err
	}
	m, err := p.Says(ctx, `listening (\S+)\n`)
	if err != nil {
		p.Stop(0)
		return nil, "", err
	}
	return p, m[1], nil
}

// runHop is this program as a hop. It ends by a signal.
func runHop(spec string) error {
	var h hop
	if err := json.Unmarshal([]byte(spec), &h); err != nil {
		return fmt.Errorf("hop: %w", err)
	}
	ln, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return err
	}
	fmt.Println("listening", ln.Addr())
	return h.serve(ln)
}
