//go:build linux

package main

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// A book holds what was measured.
type book struct {
	samples map[entry][]float64
	Notes   []string
}

// entry names what a number is of: a metric, and whose.
type entry struct{ metric, subject string }

func newBook() *book { return &book{samples: make(map[entry][]float64)} }

// add notes what one round has measured.
func (b *book) add(metric, subject string, value float64) {
	b.samples[entry{metric, subject}] = append(b.samples[entry{metric, subject}], value)
}

// of is what the rounds have measured; nil: nothing.
func (b *book) of(metric, subject string) []float64 { return b.samples[entry{metric, subject}] }

func (b *book) note(text string) {
	if !slices.Contains(b.Notes, text) {
		b.Notes = append(b.Notes, text)
	}
}

// entries are sorted by metric, then subject.
func (b *book) entries() []entry {
	return slices.SortedFunc(maps.Keys(b.samples), func(x, y entry) int {
		return cmp.Or(cmp.Compare(x.metric, y.metric), cmp.Compare(x.subject, y.subject))
	})
}

// A summary is of several rounds.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

func summarize(v []float64) summary {
	if len(v) == 0 {
		return summary{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	return summary{median(v), slices.Min(v), slices.Max(v), len(v)}
}

// median is between the two in the middle where their number is even.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// ratios are of each round: what changes from one moment to the next on a machine
// that others use, too, changes for both.
func ratios(a, b []float64) []float64 {
	out := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

// percentile of times, which it sorts: the least that is not below p of 100 of them.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	i := int(math.Ceil(float64(len(times))*p/100)) - 1
	return times[min(max(i, 0), len(times)-1)]
}
