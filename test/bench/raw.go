//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// rawSize is a kind of messages.
type rawSize struct {
	name  string
	size  int
	alone bool // a write for each; else as many as fit into 64 KiB go at once
}

func (r rawSize) metric() string { return "raw " + r.name }

var rawSizes = []rawSize{
	{"64 B", 64, false}, {"64 B, one a write", 64, true}, {"4 KiB", 4 << 10, false}, {"64 KiB", 64 << 10, false}, {"1 MiB", 1 << 20, false},
}

func rawFigures() []figure {
	var all []figure
	for _, s := range rawSizes {
		all = append(all, figure{
			name: s.metric(), subjects: []string{ours, oneForwarder},
			measure: func(b *bench, ctx context.Context, subject string, add func(string, float64)) error {
				return b.rawMessages(ctx, subject, s, add)
			},
		})
	}
	return all
}

// rawMessages go from a requester to a device through one process.
func (b *bench) rawMessages(ctx context.Context, subject string, s rawSize, add func(string, float64)) error {
	c, open, err := b.rawWorld(ctx, subject)
	if err != nil {
		return err
	}
	requester, device, err := open(ctx)
	if err != nil {
		return err
	}
	defer requester.Close()
	defer device.Close()
	for _, p := range []*peer{requester, device} {
		p.SetDeadline(time.Now().Add(b.length + patience))
		defer context.AfterFunc(ctx, func() { p.Close() })()
	}
	before, err := c.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	var sent, got, gotBytes int64
	err = together(2, func(i int) (err error) {
		if i == 0 {
			sent, err = sendMessages(requester, s, b.length)
			return err
		}
		got, gotBytes, err = countMessages(device)
		return err
	})
	took := time.Since(began)
	if err == nil && (got != sent || gotBytes != sent*int64(s.size)) {
		err = fmt.Errorf("%d messages of %d B were sent; %d with %d bytes arrived", sent, s.size, got, gotBytes)
	}
	if err != nil {
		return err
	}
	after, err := c.cpu()
	if err != nil {
		return err
	}
	add(s.metric(), float64(gotBytes)/mib/took.Seconds())
	add(s.metric()+" messages", float64(got)/took.Seconds())
	add(s.metric()+" cpu", (after[partRelay]-before[partRelay]).Seconds()/(float64(gotBytes)/(1<<30)))
	return nil
}

// sendMessages writes for d, and then a close frame.
func sendMessages(p *peer, s rawSize, d time.Duration) (sent int64, err error) {
	one := frame(finBit|opBinary, make([]byte, s.size))
	n := 1
	if !s.alone {
		n = max(1, (64<<10)/len(one))
	}
	var batch []byte
	for range n {
		batch = append(batch, one...)
	}
	for end := time.Now().Add(d); time.Now().Before(end); sent += int64(n) {
		if _, err := p.Write(batch); err != nil {
			return sent, err
		}
	}
	_, err = p.Write(closeFrame())
	return sent, err
}

// countMessages reads until the close frame, and answers that.
func countMessages(p *peer) (messages, bytes int64, err error) {
	b := bulk.Get().(*[]byte)
	defer bulk.Put(b)
	err = p.frames(*b, func(h header, _ []byte) error {
		switch op := h.first & 0xf; {
		case op < opClose:
			bytes += h.length
			if h.first&finBit != 0 {
				messages++
			}
		case op == opClose:
			_, err := p.Write(closeFrame())
			return err
		}
		return nil
	})
	return messages, bytes, err
}

// rawWorld is a relay of ours or one hop of the reference chain, and how to make a bridge
// through it. It is kept for all figures.
func (b *bench) rawWorld(ctx context.Context, subject string) (*chain, func(context.Context) (requester, device *peer, err error), error) {
	if w := b.raw[subject]; w != nil {
		return w.chain, w.open, nil
	}
	if subject != oneForwarder {
		c, y, err := b.freshYard(ctx, subject)
		if err != nil {
			return nil, nil, err
		}
		b.raw[subject] = &rawWorld{c, y.open, y.close}
		return c, y.open, nil
	}
	ln, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, nil, err
	}
	startCtx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, addr, err := b.startHop(startCtx, hop{Kind: kindRelay, Next: ln.Addr().String()})
	if err != nil {
		ln.Close()
		return nil, nil, err
	}
	c := &chain{name: subject, addr: addr, parts: programs{partRelay: p}, wait: time.Second}
	b.all = append(b.all, c)
	open := func(ctx context.Context) (requester, device *peer, err error) { return openForwarded(ctx, ln, addr) }
	b.raw[subject] = &rawWorld{c, open, func() { ln.Close() }}
	return c, open, nil
}

// A rawWorld is where raw messages go.
type rawWorld struct {
	chain *chain
	open  func(context.Context) (requester, device *peer, err error)
	close func()
}

// freshYard starts a relay of ours without agent or tunnel.
func (b *bench) freshYard(ctx context.Context, subject string) (*chain, *yard, error) {
	startCtx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c := &chain{name: subject, parts: make(programs), wait: time.Second}
	b.all = append(b.all, c)
	if err := b.startOurs(startCtx, c, oursConfig{secure: secure(subject)}); err != nil {
		return nil, nil, err
	}
	y, err := b.newYard(ctx, c, secure(subject))
	return c, y, err
}

// openForwarded makes a connection through a hop, whose next one this program is.
func openForwarded(ctx context.Context, ln net.Listener, addr string) (requester, device *peer, err error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	if err := offer(c, "/", nil); err != nil {
		c.Close()
		return nil, nil, err
	}
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	d, err := ln.Accept()
	if err == nil {
		d.SetDeadline(time.Now().Add(patience))
		if err = accept(d); err != nil {
			d.Close()
		}
	}
	if err != nil {
		c.Close()
		return nil, nil, errors.Join(errors.New("the hop's next connection"), err)
	}
	return &peer{Conn: c}, &peer{Conn: d}, nil
}
