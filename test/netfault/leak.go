package netfault

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// Main is a TestMain that fails if goroutines outlive the tests. Those inside a
// bubble of testing/synctest are found by that.
func Main(m *testing.M) {
	code := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(code) // the fuzzer has its own goroutines
	}
	for deadline := time.Now().Add(5 * time.Second); code == 0 && runtime.NumGoroutine() > 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			fmt.Printf("%d goroutines are left:\n%s\n", runtime.NumGoroutine()-1, buf[:runtime.Stack(buf, true)])
			code = 1
		}
	}
	os.Exit(code)
}
