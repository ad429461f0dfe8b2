package audit_test

import (
	"testing"

	"websocketbridge/test/netfault"
)

func TestMain(m *testing.M) { netfault.Main(m) }
