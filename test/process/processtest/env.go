package processtest

import (
	"os"

	"websocketbridge/test/process"
)

// CleanEnv is the environment without settings of our programs and without proxies, and
// more, which comes later and so prevails.
func CleanEnv(more ...string) []string { return append(process.CleanEnv(), more...) }

// BareEnv is CleanEnv where this machine is of no interest either.
func BareEnv(more ...string) []string {
	env := []string{"LC_ALL=C.UTF-8"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, more...)
}
