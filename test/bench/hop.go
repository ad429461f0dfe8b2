//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

// bufferSize of each direction of a reference hop. A frame of that much and its header
// are one segment on the loopback interface, whose MTU is 65536: with 64 KiB each frame
// needs a second one, and the chain's CPU for a byte grows by half. 40 to 63 KiB are
// alike, 32 KiB and less cost a sixth more.
const bufferSize = 56 << 10

// A hop is one program of a reference chain. It takes connections on Listen and joins
// each with a new one to Next.
type hop struct {
	Kind string // a hop's; see kinds
	Next string // address to dial
	// For TLS, or empty. A server needs the first two, a client the third.
	Cert, Key, CA string
	Delay         delay // of kindDelay
}

// The kinds of hop.
const (
	kindSplice = "splice" // bytes as they are, by splice(2)
	kindProxy  = "proxy"  // the user's end: TCP in, masked frames out
	kindRelay  = "relay"  // frames in, unmasked, frames out
	kindAgent  = "agent"  // the device's end: frames in, TCP out; masks what it sends
	kindDelay  = "delay"  // bytes as they are, later
)

// serve takes connections until ln fails.
func (h *hop) serve(ln net.Listener) error {
	var server, client *tls.Config
	if h.Cert != "" && h.Kind != kindProxy {
		cert, err := tls.LoadX509KeyPair(h.Cert, h.Key)
		if err != nil {
			return err
		}
		server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
	}
	if h.CA != "" && h.Kind != kindAgent {
		roots, err := loadRoots(h.CA)
		if err != nil {
			return err
		}
		client = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: loopback}
	}
	var links [2]*link
	if h.Kind == kindDelay {
		links = [2]*link{newLink(h.Delay), newLink(h.Delay)}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		in, err := ln.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer in.Close()
			out, err := net.Dial("tcp", h.Next)
			if err != nil {
				fmt.Println("dial:", err)
				return
			}
			defer out.Close()
			if server != nil {
				in = tls.Server(in, server)
			}
			if client != nil {
				out = tls.Client(out, client)
			}
			if err := h.join(in, out, links); err != nil && !errors.Is(err, net.ErrClosed) {
				fmt.Println(h.Kind+":", err) // in the file that is shown if the chain fails
			}
		})
	}
}

// join passes on both ways until both have ended, or one has failed.
func (h *hop) join(in, out net.Conn, links [2]*link) error {
	var there, back func(dst, src net.Conn) error
	switch h.Kind {
	case kindSplice:
		there, back = splice, splice
	case kindDelay:
		there, back = links[0].pass, links[1].pass
	case kindProxy:
		if err := offer(out, "/", nil); err != nil {
			return err
		}
		there, back = mask, strip
	case kindRelay:
		if err := accept(in); err != nil {
			return err
		}
		if err := offer(out, "/", nil); err != nil {
			return err
		}
		there, back = forward, forward
	case kindAgent:
		if err := accept(in); err != nil {
			return err
		}
		there, back = strip, mask
	default:
		return fmt.Errorf("%q is no kind of hop", h.Kind)
	}
	var errs [2]error
	pass := func(i int, f func(dst, src net.Conn) error, dst, src net.Conn) {
		if errs[i] = f(dst, src); errs[i] == nil {
			errs[i] = dst.(closeWriter).CloseWrite()
		}
		if errs[i] != nil { // the other direction is of no use to anybody
			in.Close()
			out.Close()
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { pass(1, back, in, out) })
	pass(0, there, out, in)
	wg.Wait()
	return errors.Join(errs[0], errs[1])
}

// closeWriter is what a TCP or TLS connection can do.
type closeWriter interface{ CloseWrite() error }

func splice(dst, src net.Conn) error {
	_, err := io.Copy(dst, src)
	return err
}

// mask makes a frame of each read.
func mask(dst, src net.Conn) error {
	b := make([]byte, maxHeader+bufferSize)
	for {
		n, err := src.Read(b[maxHeader:])
		if n > 0 {
			h := header{first: finBit | opBinary, masked: true, key: rand.Uint32(), length: int64(n)}
			start := maxHeader - headerSize(h.length, true)
			h.put(b[start:])
			payload := b[maxHeader : maxHeader+n]
			xor(payload, payload, h.key)
			if _, err := dst.Write(b[start : maxHeader+n]); err != nil {
				return err
			}
		}
		if err != nil {
			return noEOF(err)
		}
	}
}

// strip passes on what is in frames.
func strip(dst, src net.Conn) error { return rewriteAll(dst, src, rewriter{}) }

// forward passes frames on, unmasked.
func forward(dst, src net.Conn) error { return rewriteAll(dst, src, rewriter{headers: true}) }

func rewriteAll(dst, src net.Conn, f rewriter) error {
	b := make([]byte, maxHeader+bufferSize)
	held := 0
	for {
		n, err := src.Read(b[held:])
		if n > 0 {
			out, rest, err := f.rewrite(b[:held+n])
			if err != nil {
				return err
			}
			if len(out) > 0 {
				if _, err := dst.Write(out); err != nil {
					return err
				}
			}
			held = copy(b, rest)
		}
		if err != nil {
			return noEOF(err)
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
