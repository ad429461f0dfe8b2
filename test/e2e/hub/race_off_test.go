//go:build !race

package hub_test

const atOnce = 200 // bridges
