//go:build race

package e2e_test

const cycles = 2_000
