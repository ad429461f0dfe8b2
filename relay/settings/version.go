package settings

import "runtime/debug"

// Version of this build. Release builds set it with
// -ldflags "-X websocketbridge/relay/settings.version=1.2.3"; without that it is
// what the go command knows of the module.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

var version = ""
