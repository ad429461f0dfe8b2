package status

// DefaultsOn is Defaults of another system.
var DefaultsOn = defaults
