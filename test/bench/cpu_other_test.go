//go:build !unix

package main

import "testing"

// reportCPU: there is no getrusage here.
func reportCPU(*testing.B) func() { return func() {} }
