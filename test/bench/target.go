//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// loopback is where everything listens.
const loopback = "127.0.0.1"

// An order is the first thing that a user says to the target: what to do, and for how long.
//
//	'S' sink    read until the end, then answer with the number of bytes: 8, big endian
//	'P' pour    send for that many nanoseconds, then close
//	'E' echo    send back what comes
const orderSize = 9

const (
	orderSink = 'S'
	orderPour = 'P'
	orderEcho = 'E'
)

func order(what byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint64([]byte{what}, uint64(d))
}

// bulkSize is what user and target write, and read, at once.
const bulkSize = 256 << 10

// A target is what the chains lead to.
type target struct {
	ln net.Listener
	wg sync.WaitGroup

	sunk atomic.Int64 // bytes that all sinks have got

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

func newTarget() (*target, error) {
	ln, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, err
	}
	t := &target{ln: ln, conns: make(map[net.Conn]bool)}
	t.wg.Go(t.serve)
	return t, nil
}

func (t *target) addr() string { return t.ln.Addr().String() }

// close ends all connections, and returns when their goroutines have.
func (t *target) close() {
	t.ln.Close()
	t.mu.Lock()
	for c := range t.conns {
		c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

func (t *target) serve() {
	for {
		c, err := t.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: whoever dialled finds out
			time.Sleep(10 * time.Millisecond)
			continue
		}
		t.mu.Lock()
		t.conns[c] = true
		t.mu.Unlock()
		t.wg.Go(func() {
			t.obey(c) // a failure shows at the user
			c.Close()
			t.mu.Lock()
			delete(t.conns, c)
			t.mu.Unlock()
		})
	}
}

func (t *target) obey(c net.Conn) error {
	var o [orderSize]byte
	if _, err := io.ReadFull(c, o[:]); err != nil {
		return err
	}
	switch what := o[0]; what {
	case orderSink:
		n, err := drain(c, func(n int) { t.sunk.Add(int64(n)) })
		if err != nil {
			return err
		}
		_, err = c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		return err
	case orderPour:
		_, err := pour(c, time.Duration(binary.BigEndian.Uint64(o[1:])))
		return err
	case orderEcho:
		b := make([]byte, 4<<10) // idle ones are counted in thousands
		for {
			n, err := c.Read(b)
			if err != nil {
				return err
			}
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("order %q is unknown", what)
	}
}

var bulk = sync.Pool{New: func() any { b := make([]byte, bulkSize); return &b }}

// pour writes for d.
func pour(c net.Conn, d time.Duration) (sent int64, err error) {
	b := bulk.Get().(*[]byte)
	defer bulk.Put(b)
	for end := time.Now().Add(d); time.Now().Before(end); {
		n, err := c.Write(*b)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// drain reads until the end, and tells progress, if it is not nil, of each read.
func drain(c net.Conn, progress func(n int)) (got int64, err error) {
	b := bulk.Get().(*[]byte)
	defer bulk.Put(b)
	for {
		n, err := c.Read(*b)
		got += int64(n)
		if progress != nil {
			progress(n)
		}
		if err != nil {
			return got, noEOF(err)
		}
	}
}
