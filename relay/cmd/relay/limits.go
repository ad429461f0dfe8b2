package main

import "websocketbridge/relay"

// limitSettings are caps that keep one device, one principal or one address from
// taking what belongs to all. 0 is no limit.
type limitSettings struct {
	PerDevice         int `envconfig:"MAX_PER_DEVICE" default:"100" desc:"bridges at once of a device; 0: no limit, here and in the lines below"`
	PerPrincipal      int `envconfig:"MAX_PER_PRINCIPAL" default:"1000" desc:"bridges at once of a principal"`
	PrincipalConnects int `envconfig:"CONNECTS_PER_PRINCIPAL" default:"600" desc:"connects a minute of a principal"`
	DeviceConnects    int `envconfig:"CONNECTS_PER_DEVICE" default:"300" desc:"connects a minute to a device"`
	AddressConnects   int `envconfig:"CONNECTS_PER_ADDRESS" default:"1200" desc:"connects a minute from an address (IPv6: a /64)"`
	AddressFailures   int `envconfig:"FAILURES_PER_ADDRESS" default:"60" desc:"failed authentications a minute from an address; above, no requester there is heard"`
	Requests          int `envconfig:"MAX_REQUESTS" default:"0" desc:"requests served at once, those of waiting bridges among them; 0: MAX_WAITING and 1000 more"`
	Pending           int `envconfig:"MAX_PENDING" default:"2048" desc:"connections that wait for their request; one more closes the oldest"`
	PendingPerAddress int `envconfig:"MAX_PENDING_PER_ADDRESS" default:"1024" desc:"likewise of one address"`
}

// each pairs a setting with its field of relay.Config.
func (l limitSettings) each(c *relay.Config, f func(name string, setting int, field *int)) {
	f("MAX_PER_DEVICE", l.PerDevice, &c.MaxPerDevice)
	f("MAX_PER_PRINCIPAL", l.PerPrincipal, &c.MaxPerPrincipal)
	f("CONNECTS_PER_PRINCIPAL", l.PrincipalConnects, &c.ConnectsPerPrincipal)
	f("CONNECTS_PER_DEVICE", l.DeviceConnects, &c.ConnectsPerDevice)
	f("CONNECTS_PER_ADDRESS", l.AddressConnects, &c.ConnectsPerAddress)
	f("FAILURES_PER_ADDRESS", l.AddressFailures, &c.FailuresPerAddress)
	f("MAX_REQUESTS", l.Requests, &c.MaxRequests)
	f("MAX_PENDING", l.Pending, &c.MaxPending)
	f("MAX_PENDING_PER_ADDRESS", l.PendingPerAddress, &c.MaxPendingPerAddress)
}

// apply turns a person's 0, no limit, into a Config's, whose 0 is the default.
func (l limitSettings) apply(c *relay.Config) {
	l.each(c, func(name string, setting int, field *int) {
		if *field = setting; setting == 0 && name != "MAX_REQUESTS" {
			*field = -1
		}
	})
}

func (l limitSettings) check(bad func(name, format string, args ...any)) {
	l.each(new(relay.Config), func(name string, setting int, _ *int) {
		if setting < 0 {
			bad(name, "%d is negative; 0 is no limit", setting)
		}
	})
}
