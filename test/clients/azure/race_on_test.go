//go:build clients && race

package azure

// race: the test was built with the race detector, and so are the processes.
const race = true
