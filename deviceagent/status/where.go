package status

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Off is the address that means no socket.
const Off = "off"

const socketName = "status.sock"

// Check says why address, which somebody has set, cannot be one.
func Check(address string) error {
	switch {
	case address == Off:
		return nil
	case isAbstract(address) && runtime.GOOS != "linux":
		return fmt.Errorf("%q: sockets without a file are there on Linux only; name a whole path", address)
	case address == "@":
		return errors.New("@ needs a name behind it")
	case !filepath.IsAbs(address) && !isAbstract(address):
		return fmt.Errorf("%q is not a whole path, as /run/deviceagent/status.sock, nor %s", address, Off)
	case len(address) >= maxPath:
		return fmt.Errorf("%q is longer than a socket's path may be, %d bytes", address, maxPath-1)
	}
	return nil
}

// maxPath is of sockaddr_un's on BSD and macOS, the shortest there is, with its NUL.
const maxPath = 104

// isAbstract tells Linux's sockets that have no file.
func isAbstract(address string) bool { return strings.HasPrefix(address, "@") }

// Defaults are where an agent with this user and environment would serve, the best
// first.
func Defaults() []string { return defaults(runtime.GOOS, os.Getuid(), os.Getenv) }

func defaults(goos string, uid int, getenv func(string) string) []string {
	var all []string
	add := func(elem ...string) {
		if elem[0] != "" {
			all = append(all, filepath.Join(append(elem, socketName)...))
		}
	}
	if goos == "windows" {
		add(getenv("ProgramData"), "deviceagent")
		return all
	}
	first, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":") // systemd joins several
	add(first)
	if uid != 0 {
		add(getenv("XDG_RUNTIME_DIR"), "deviceagent")
	}
	if goos == "darwin" {
		add("/var/db/deviceagent")
		return all
	}
	add("/run/deviceagent")
	add("/var/run/deviceagent") // OpenWrt has no /run
	if goos == "linux" {
		all = append(all, "@deviceagent-status-"+strconv.Itoa(uid))
	}
	return all
}

// makeDir makes the folder of a default path, for its owner only. One that is there is
// taken if it is nobody else's.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || !ownedByUs(info) {
		return fmt.Errorf("%s is there and not this user's folder", dir)
	}
	return nil
}
