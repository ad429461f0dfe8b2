//go:build linux

package main

import (
	"fmt"
	"math"
)

// A goal is one line of what this product has to reach. With a reference it is about
// the ratio to it in the same round, and without about the number itself.
type goal struct {
	title     string
	metric    string
	unit      string
	subject   string
	reference string
	most      bool // else least
	limit     float64
}

// goals are those of the issue that this program was written for.
func goals() []goal {
	var all []goal
	for _, way := range []string{"up", "down"} {
		one, eight := "throughput "+way+" 1", "throughput "+way+" 8"
		all = append(all,
			goal{"1 stream, " + way, one, "MiB/s", ours, chainFrames, false, 0.80},
			goal{"8 streams, " + way, eight, "MiB/s", ours, chainFrames, false, 0.85},
			goal{"1 stream, " + way + ", TLS", one, "MiB/s", oursTLS, chainTLS, false, 0.90},
			goal{"8 streams, " + way + ", TLS", eight, "MiB/s", oursTLS, chainTLS, false, 0.90},
			goal{"CPU of the relay, " + way, one + " cpu relay", "s/GiB", ours, chainFrames, true, 1.15},
			goal{"CPU of all three, " + way, one + " cpu all", "s/GiB", ours, chainFrames, true, 1.35},
		)
	}
	for _, m := range rawSizes {
		limit := 0.95
		if m.size < 64<<10 {
			limit = 0.90
		}
		all = append(all, goal{"raw, messages of " + m.name, m.metric(), "MiB/s", ours, oneForwarder, false, limit})
	}
	return append(all,
		goal{"RTT p50, 1 stream", "rtt 1 p50", "µs", ours, chainFrames, true, 1.2},
		goal{"RTT p50, 32 streams", "rtt 32 p50", "µs", ours, chainFrames, true, 1.2},
		goal{"RTT p99 beside 32 MiB/s", "rtt beside bulk p99", "µs", ours, chainFrames, true, 1.0},
		goal{"new streams, 16 at once", "new streams 16", "1/s", ours, chainFrames, false, 1.2},
		goal{"new streams, 64 at once", "new streams 64", "1/s", ours, chainFrames, false, 1.2},
		goal{"new bridges, 64 at once", "bridges", "1/s", ours, "", false, 1000},
		goal{"new bridges, p99", "bridges p99", "ms", ours, "", true, 100},
		goal{"idle stream at the relay", "idle stream relay", "KiB", ours, "", true, 0.5},
		goal{"idle stream at the agent", "idle stream agent", "KiB", ours, "", true, 16},
		goal{"idle raw bridge", "idle bridge", "KiB", ours, "", true, 20},
		goal{"idle raw bridge, TLS", "idle bridge", "KiB", oursTLS, "", true, 80},
		goal{"idle bridges that answer", "idle bridges that answer", "", ours, "", false, 20_000},
		goal{"100 ms path, 1 stream, up", "path 100ms up 1", "MiB/s", ours, plainTCP, false, 0.9},
		goal{"100 ms path, 1 stream, down", "path 100ms down 1", "MiB/s", ours, plainTCP, false, 0.9},
	)
}

// A result is a goal beside what was measured. NaN is what was not.
type result struct {
	goal
	ours, reference summary
	ratio           summary
}

func (g goal) judge(b *book) result {
	o := b.of(g.metric, g.subject)
	r := result{goal: g, ours: summarize(o), reference: summarize(nil), ratio: summarize(nil)}
	if g.reference != "" {
		ref := b.of(g.metric, g.reference)
		r.reference, r.ratio = summarize(ref), summarize(ratios(o, ref))
	}
	return r
}

// value is what the limit is for.
func (r result) value() float64 {
	if r.goal.reference != "" {
		return r.ratio.Median
	}
	return r.ours.Median
}

func (r result) measured() bool { return !math.IsNaN(r.value()) }

func (r result) met() bool {
	if r.most {
		return r.value() <= r.limit
	}
	return r.value() >= r.limit
}

// wanted is the goal in words.
func (g goal) wanted() string {
	sign := "≥"
	if g.most {
		sign = "≤"
	}
	if g.reference != "" {
		return fmt.Sprintf("%s %.2f×", sign, g.limit)
	}
	if g.unit == "" {
		return fmt.Sprintf("%s %.0f", sign, g.limit)
	}
	return fmt.Sprintf("%s %g %s", sign, g.limit, g.unit)
}
