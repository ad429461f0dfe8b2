//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// pathRate of the delayed path, both ways: 1 Gbit/s.
const pathRate = 125_000_000

var roundTrips = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}

func pathFigures() []figure {
	var all []figure
	for _, rtt := range roundTrips {
		for _, n := range []int{1, 8} {
			for _, way := range []string{"up", "down"} {
				all = append(all, figure{
					name: pathMetric(rtt, way, n), subjects: []string{ours, plainTCP}, rounds: 2, cold: true, more: rtt != 100*time.Millisecond,
					measure: func(b *bench, ctx context.Context, subject string, add func(string, float64)) error {
						return b.longPath(ctx, subject, rtt, way, n, add)
					},
				})
			}
		}
	}
	return all
}

func pathMetric(rtt time.Duration, way string, n int) string {
	return fmt.Sprintf("path %v %s %d", rtt, way, n)
}

// farChain has a delayed path in it: of ours between agent and relay, of TCP in front of
// the target.
func (b *bench) farChain(ctx context.Context, subject string, rtt time.Duration) (*chain, error) {
	key := fmt.Sprintf("%s, %v", subject, rtt)
	if c := b.chains[key]; c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c := &chain{name: subject, parts: make(programs), wait: time.Second}
	b.all = append(b.all, c)
	next := b.target.addr()
	if subject != plainTCP {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		next = addr
	}
	p, addr, err := b.startHop(ctx, hop{Kind: kindDelay, Next: next, Delay: delay{Way: rtt / 2, Rate: pathRate}})
	if err != nil {
		return nil, err
	}
	c.path = p
	c.addr = addr
	if subject != plainTCP {
		if err := b.startOurs(ctx, c, oursConfig{tunnel: true, listen: next, dial: addr}); err != nil {
			c.stop()
			return nil, err
		}
	}
	b.chains[key] = c
	return c, nil
}

// freeAddr is one that nobody listens on now: of two programs that have to know each
// other's address, one has to be told in advance.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// longPath is the rate at which n streams arrive once they have had half of the time to
// find it. A plain connection starts slowly, too, on a real path.
func (b *bench) longPath(ctx context.Context, subject string, rtt time.Duration, way string, n int, add func(string, float64)) error {
	c, err := b.farChain(ctx, subject, rtt)
	if err != nil {
		return err
	}
	half := 3 * b.length
	o := order(orderSink, 0)
	arrived := &b.target.sunk
	if way == "down" {
		o = order(orderPour, 2*half)
		arrived = new(atomic.Int64)
	}
	users, err := callAll(ctx, n, c.addr, o, 2*half)
	if err != nil {
		return err
	}
	defer closeAll(users)
	var rate float64
	err = together(n+1, func(i int) error {
		if i < n && way == "down" {
			_, err := drain(users[i], func(n int) { arrived.Add(int64(n)) })
			return err
		}
		if i < n {
			sent, err := pour(users[i], 2*half)
			if err != nil {
				return err
			}
			return confirm(users[i], sent)
		}
		if err := sleep(ctx, half); err != nil {
			return err
		}
		from, began := arrived.Load(), time.Now()
		if err := sleep(ctx, half-half/20); err != nil { // before they end
			return err
		}
		rate = float64(arrived.Load()-from) / mib / time.Since(began).Seconds()
		return nil
	})
	if err != nil {
		return err
	}
	metric := pathMetric(rtt, way, n)
	add(metric, rate)
	for part, p := range c.parts {
		_, peak, err := p.Memory()
		if err != nil {
			return err
		}
		add(metric+" peak "+part, float64(peak)/mib)
	}
	return nil
}

// paths writes the table of delayed paths.
func paths(w io.Writer, b *book) {
	head := false
	for _, rtt := range roundTrips {
		for _, n := range []int{1, 8} {
			for _, way := range []string{"up", "down"} {
				m := pathMetric(rtt, way, n)
				o, tcp := b.of(m, ours), b.of(m, plainTCP)
				if len(o) == 0 || len(tcp) == 0 {
					continue
				}
				if !head {
					head = true
					fmt.Fprintln(w, "\n| path of 1 Gbit/s | ours MiB/s | one TCP connection a stream | ratio | peak MiB so far: proxy · relay · agent |")
					fmt.Fprintln(w, "| --- | --- | --- | --- | --- |")
				}
				fmt.Fprintf(w, "| %v, %d × %s | %s | %s | %.2f | %s · %s · %s |\n", rtt, n, way, summarize(o).text(""), summarize(tcp).text(""), median(ratios(o, tcp)),
					number(median(b.of(m+" peak "+partProxy, ours))), number(median(b.of(m+" peak "+partRelay, ours))), number(median(b.of(m+" peak "+partAgent, ours))))
			}
		}
	}
}
