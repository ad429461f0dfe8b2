//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"websocketbridge/relay/wire"
	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

const (
	opPing = 0x9
	opPong = 0xA
)

// A peer is a client of a relay: a requester or a device of raw mode. As the hops, it
// does what has to be done and no more, so that the relay has the machine for itself.
type peer struct {
	net.Conn
	more []byte // read with the handshake
}

// Read gives what came with the handshake first.
func (p *peer) Read(b []byte) (int, error) {
	if len(p.more) > 0 {
		n := copy(b, p.more)
		p.more = p.more[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// frame is a whole one, masked, as all that peers send.
func frame(first byte, payload []byte) []byte {
	h := header{first: first, masked: true, key: rand.Uint32(), length: int64(len(payload))}
	n := headerSize(h.length, true)
	b := make([]byte, n+len(payload))
	h.put(b)
	xor(b[n:], payload, h.key)
	return b
}

// closeFrame says 1000.
func closeFrame() []byte { return frame(finBit|opClose, []byte{1000 >> 8, 1000 & 0xff}) }

// frames tells of each frame's header until a close frame has come or f fails. Of a control
// frame it tells the payload, too; of others nobody asks.
func (p *peer) frames(b []byte, f func(h header, payload []byte) error) error {
	held, skip := 0, int64(0)
	for {
		n, err := p.Read(b[held:])
		part := b[:held+n]
		for len(part) > 0 {
			if skip > 0 {
				m := min(skip, int64(len(part)))
				part, skip = part[m:], skip-m
				continue
			}
			h, perr := parse(part)
			if perr != nil {
				return perr
			}
			if h.size == 0 {
				break
			}
			op := h.first & 0xf
			if op >= opClose && len(part) < h.size+int(h.length) {
				break
			}
			var payload []byte
			if op >= opClose {
				payload = part[h.size : h.size+int(h.length)]
			}
			if err := f(h, payload); err != nil {
				return err
			}
			if op == opClose {
				return nil
			}
			part, skip = part[h.size:], h.length
		}
		held = copy(b, part)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// dialPeer opens a WebSocket. at counts connections, which share several addresses of this
// machine: one has ports for 28 000 only.
func dialPeer(ctx context.Context, u *url.URL, lines []string, secure *tls.Config, at int64) (*peer, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+at%16))}}
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "wss" {
		c = tls.Client(c, secure)
	}
	c.SetDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	more, err := offerTo(c, u.Host, u.RequestURI(), lines)
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return &peer{Conn: c, more: more}, nil
}

// A yard makes raw bridges through a relay: it is requester and device.
type yard struct {
	relay  *url.URL
	secure *tls.Config
	apiKey string
	dialed atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the two below
	next    int
	waiting map[string]chan dialedBack // by request data
}

// dialedBack is what became of a device's dial.
type dialedBack struct {
	peer *peer
	err  error
}

// newYard listens for signals as the device, until it is closed.
func (l *lab) newYard(ctx context.Context, c *chain, secure bool) (*yard, error) {
	roots, err := loadRoots(l.cert.cert)
	if err != nil {
		return nil, err
	}
	relay, err := url.Parse(scheme(secure) + c.addr)
	if err != nil {
		return nil, err
	}
	source, err := fake.NewRemoteSource(fake.RemoteConfig{URL: "ws://" + c.hub, DeviceID: deviceID})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	y := &yard{
		relay: relay, secure: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: loopback}, apiKey: l.apiKey, cancel: cancel,
		waiting: make(map[string]chan dialedBack),
	}
	y.wg.Go(func() {
		source.Run(ctx, func(ctx context.Context, d signaler.Delivery) *signaler.Refusal {
			s, err := signaler.Parse(d.Payload)
			if err != nil {
				return &signaler.Refusal{Code: "bad_signal", Message: "it cannot be read"}
			}
			y.wg.Go(func() { y.dialBack(ctx, s) })
			return nil
		})
	})
	// The relay refuses a device that is not there yet.
	for end := time.Now().Add(startTime); ; {
		r, d, err := y.open(ctx)
		if err == nil {
			r.Close()
			d.Close()
			return y, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			y.close()
			return nil, fmt.Errorf("the first raw bridge: %w", err)
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

func (y *yard) close() {
	y.cancel()
	y.wg.Wait()
}

func (y *yard) dialBack(ctx context.Context, s *signaler.Signal) {
	y.mu.Lock()
	ch := y.waiting[s.RequestData]
	delete(y.waiting, s.RequestData)
	y.mu.Unlock()
	if ch == nil {
		return // whoever asked has gone
	}
	u, err := url.Parse(s.AcceptURL)
	if err != nil {
		ch <- dialedBack{nil, errors.New("the accept URL is none")}
		return
	}
	p, err := dialPeer(ctx, u, nil, y.secure, y.dialed.Add(1))
	ch <- dialedBack{p, err}
}

// open makes a bridge.
func (y *yard) open(ctx context.Context) (requester, device *peer, err error) {
	ch := make(chan dialedBack, 1)
	y.mu.Lock()
	y.next++
	name := strconv.Itoa(y.next)
	y.waiting[name] = ch
	y.mu.Unlock()
	u := *y.relay
	u.Path = wire.PathConnect
	u.RawQuery = url.Values{"deviceId": {deviceID}, "requestData": {name}}.Encode()
	requester, err = dialPeer(ctx, &u, []string{"X-Api-Key: " + y.apiKey}, y.secure, y.dialed.Add(1))
	if err != nil {
		y.mu.Lock()
		_, there := y.waiting[name]
		delete(y.waiting, name)
		y.mu.Unlock()
		if !there { // the device was told
			if back := <-ch; back.err == nil {
				back.peer.Close()
			}
		}
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	back := <-ch
	if back.err != nil {
		requester.Close()
		return nil, nil, fmt.Errorf("dial back: %w", back.err)
	}
	return requester, back.peer, nil
}
