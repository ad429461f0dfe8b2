//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const mib = 1 << 20

func throughputFigures() []figure {
	var all []figure
	for _, n := range []int{1, 8} {
		for _, way := range []string{"up", "down"} {
			all = append(all, figure{
				name: fmt.Sprintf("throughput %s %d", way, n), subjects: allChains,
				measure: func(b *bench, ctx context.Context, subject string, add func(string, float64)) error {
					return b.throughput(ctx, subject, way, n, add)
				},
			})
		}
	}
	return all
}

// throughput is of n streams at once, all of them in one direction, and what the three
// programs spend for it.
func (b *bench) throughput(ctx context.Context, subject, way string, n int, add func(string, float64)) error {
	c, err := b.kept(ctx, subject)
	if err != nil {
		return err
	}
	before, err := c.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	total, err := transfer(ctx, c.addr, way, n, b.length)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := c.cpu()
	if err != nil {
		return err
	}
	metric := fmt.Sprintf("throughput %s %d", way, n)
	add(metric, float64(total)/mib/took.Seconds())
	all := time.Duration(0)
	for part, spent := range after {
		spent -= before[part]
		all += spent
		add(metric+" cpu "+part, spent.Seconds()/(float64(total)/(1<<30)))
	}
	add(metric+" cpu all", all.Seconds()/(float64(total)/(1<<30)))
	if way == "up" { // which it would not have got through without
		add("half-close", 1)
	}
	return nil
}

// cpu is what each program has spent.
func (c *chain) cpu() (map[string]time.Duration, error) {
	spent := make(map[string]time.Duration)
	for part, p := range c.parts {
		var err error
		if spent[part], err = p.CPU(); err != nil {
			return nil, err
		}
	}
	return spent, nil
}

// transfer sends for d on n streams, and returns when everything has arrived.
func transfer(ctx context.Context, addr, way string, n int, d time.Duration) (total int64, err error) {
	o := order(orderSink, 0)
	if way == "down" {
		o = order(orderPour, d)
	}
	var mu sync.Mutex // guards total
	err = together(n, func(int) error {
		u, err := call(ctx, addr, o, d)
		if err != nil {
			return err
		}
		defer u.Close()
		var moved int64
		if way == "up" {
			if moved, err = pour(u, d); err == nil {
				err = confirm(u, moved)
			}
		} else {
			moved, err = drain(u, nil)
		}
		mu.Lock()
		total += moved
		mu.Unlock()
		return err
	})
	if err == nil && total == 0 {
		err = fmt.Errorf("nothing arrived")
	}
	return total, err
}
