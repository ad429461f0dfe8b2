//go:build unix

package main

import (
	"syscall"
	"testing"
	"time"
)

// reportCPU begins to count, and its result reports, what all threads of all parts
// spend, in user and kernel, for each operation. On a busy machine that says more than
// the time on the clock.
func reportCPU(b *testing.B) func() {
	began := cpu(b)
	return func() { b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op") }
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
