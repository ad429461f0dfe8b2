package hub

import (
	"testing"

	"websocketbridge/test/netfault"
)

func TestMain(m *testing.M) { netfault.Main(m) }
