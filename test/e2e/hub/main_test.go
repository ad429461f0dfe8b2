package hub_test

import (
	"flag"
	"runtime"
	"strconv"
	"testing"

	"websocketbridge/test/netfault"
)

// TestMain runs more tests at once than there are processors: nearly all of them
// wait for a fault to be noticed.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		f.Value.Set("6")
	}
	netfault.Main(m)
}
