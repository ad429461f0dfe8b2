package e2e_test

import (
	"time"

	"websocketbridge/relay"
)

func shortDialBack(c *relay.Config) { c.DialBack = time.Second }
