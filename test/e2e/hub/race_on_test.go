//go:build race

package hub_test

const atOnce = 60 // bridges
