package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// ErrNoInit: none of the init systems that are known is there.
var ErrNoInit = errors.New("none of systemd, OpenRC and procd was found")

// Detect says which init system a machine has, or will have that has root as its root.
// Of this machine (root is empty) systemd counts if it runs (sd_booted(3)): its files are in many
// containers that something else starts.
func Detect(root string) (Init, error) { return detect(runtime.GOOS, root) }

func detect(goos, root string) (Init, error) {
	there := func(paths ...string) bool {
		for _, p := range paths {
			if _, err := os.Stat(filepath.Join("/", root, p)); err == nil {
				return true
			}
		}
		return false
	}
	switch {
	case goos == "windows":
		return Windows, nil
	case goos == "darwin":
		return Launchd, nil
	case root == "" && there("/run/systemd/system"):
		return Systemd, nil
	case root != "" && there("/usr/lib/systemd/systemd", "/lib/systemd/systemd"):
		return Systemd, nil
	case there("/sbin/procd") && there("/etc/rc.common"):
		return Procd, nil
	case there("/sbin/openrc-run", "/usr/sbin/openrc-run"):
		return OpenRC, nil
	}
	where := "on this machine"
	if root != "" {
		where = "below " + root
	}
	return "", fmt.Errorf("%w %s; --init names one of them, and with --print shows what it would be given, to adapt", ErrNoInit, where)
}
