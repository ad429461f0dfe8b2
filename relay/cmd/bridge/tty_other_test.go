//go:build !linux

package main

import "github.com/rogpeppe/go-internal/testscript"

// openTTY is for Linux; scripts ask with [linux].
func (p *process) openTTY(ts *testscript.TestScript) func() {
	ts.Fatalf("no terminal for tests on this system")
	return nil
}
