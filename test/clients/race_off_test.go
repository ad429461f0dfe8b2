//go:build clients && !race

package clients

const race = false
