//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// patience bounds each measurement beyond the time that it is to take: what takes
// longer hangs.
const patience = 30 * time.Second

// user is one connection of a user, who has given the target an order.
type user struct {
	net.Conn
	stop func() bool
}

// call dials a chain and gives the order. The connection ends with ctx, and after most.
func call(ctx context.Context, addr string, o []byte, most time.Duration) (*user, error) {
	d := net.Dialer{Timeout: patience}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(most + patience))
	u := &user{c, context.AfterFunc(ctx, func() { c.Close() })}
	if _, err := c.Write(o); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

func (u *user) Close() error {
	u.stop()
	return u.Conn.Close()
}

// callAll is n calls.
func callAll(ctx context.Context, n int, addr string, o []byte, most time.Duration) (users []*user, err error) {
	for range n {
		u, err := call(ctx, addr, o, most)
		if err != nil {
			closeAll(users)
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}

func closeAll(users []*user) {
	for _, u := range users {
		u.Close()
	}
}

// pingSize is a keystroke and some.
const pingSize = 64

// ping sends and waits for the echo.
func ping(c io.ReadWriter) error {
	var b [pingSize]byte
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b[:])
	return err
}

// confirm says that no more comes, and waits for the sink to have got it all: this is
// what needs half-close.
func confirm(c net.Conn, sent int64) error {
	if err := c.(closeWriter).CloseWrite(); err != nil {
		return err
	}
	var answer [8]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return fmt.Errorf("the target's answer to a half-close: %w", err)
	}
	if got := int64(binary.BigEndian.Uint64(answer[:])); got != sent {
		return fmt.Errorf("%d of %d bytes arrived", got, sent)
	}
	return nil
}

func (u *user) CloseWrite() error { return u.Conn.(*net.TCPConn).CloseWrite() }

// together runs f for each of n at once, and returns the first error.
func together(n int, f func(i int) error) error {
	errs := make(chan error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
