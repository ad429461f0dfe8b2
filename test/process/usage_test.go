//go:build linux

package process

import (
	"testing"
	"time"
)

func TestParseCPU(t *testing.T) {
	const rest = " S 1 2 2 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 1 0 99 1 1"
	for _, test := range []struct {
		name, stat string
		want       time.Duration
		fails      bool
	}{
		{"plain", "12 (relay)" + rest, 1750 * time.Millisecond, false},
		{"a name with parentheses and blanks", "12 (a) b (c d)" + rest, 1750 * time.Millisecond, false},
		{"cut", "12 (relay) S 1 2", 0, true},
		{"empty", "", 0, true},
		{"no numbers", "12 (relay) S 1 2 2 0 -1 4194560 1 2 3 4 x y 7 8", 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseCPU(test.stat)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	const status = "Name:\trelay\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\n"
	for name, want := range map[string]int64{"VmRSS": 1 << 20, "VmHWM": 2 << 20} {
		if got, err := parseSize(status, name); got != want || err != nil {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
	if _, err := parseSize("Name:\trelay\nState:\tZ (zombie)\n", "VmRSS"); err == nil {
		t.Error("a dead process has memory")
	}
}
