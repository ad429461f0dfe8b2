//go:build linux

package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		name string
		of   []float64
		want float64
	}{
		{"one", []float64{3}, 3},
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 2, 9}, 3},
		{"an outlier", []float64{1, 1e9, 2}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := slices.Clone(test.of)
			if got := median(in); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if !slices.Equal(in, test.of) {
				t.Error("it sorts what it was given: rounds would no longer match")
			}
		})
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestRatios(t *testing.T) {
	got := ratios([]float64{2, 9, 5, 7}, []float64{4, 3, 0})
	if !slices.Equal(got, []float64{0.5, 3}) {
		t.Errorf("got %v", got)
	}
}

func TestPercentile(t *testing.T) {
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(200-i))
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 100, 99: 198, 100: 200} {
		if got := percentile(times, p); got != want {
			t.Errorf("p%v: got %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("of nothing: got %v", got)
	}
}

func TestSummary(t *testing.T) {
	if got, want := summarize([]float64{3, 1, 2}), (summary{2, 1, 3, 3}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
