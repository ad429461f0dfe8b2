//go:build clients && !race

package azure

const race = false
