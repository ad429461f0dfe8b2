//go:build linux

package main

import "io"

type rawSize struct {
	name string
	size int
}

func (r rawSize) metric() string { return "raw " + r.name }

var rawSizes = []rawSize{{"64 B", 64}, {"4 KiB", 4 << 10}, {"64 KiB", 64 << 10}, {"1 MiB", 1 << 20}}

func rawFigures() []figure    { return nil }
func bridgeFigures() []figure { return nil }
func parkFigures() []figure   { return nil }
func pathFigures() []figure   { return nil }
func paths(io.Writer, *book)  {}
