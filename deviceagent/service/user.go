package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// makeUser makes the service's own user and group. Other users have to be there.
type makeUser struct{ name string }

func (s *makeUser) what() string { return "user " + s.name }

func (s *makeUser) do(m *Machine) (string, error) {
	if _, err := m.lookup("passwd", s.name); err == nil {
		return unchanged, nil
	} else if !errors.Is(err, errNoUser) {
		return "", err
	}
	switch {
	case m.image:
		return skipped, nil
	case s.name != Name:
		return "", errors.New("there is no such user; make it, or leave --user out for one of the agent's own")
	case m.Has("useradd"):
		return m.all([]string{"useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", s.name})
	case m.Has("adduser") && m.Has("addgroup"): // BusyBox
		if _, err := m.lookup("group", s.name); err != nil {
			if _, err := m.all([]string{"addgroup", "-S", s.name}); err != nil {
				return "", err
			}
		}
		return m.all([]string{"adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", "-G", s.name, s.name})
	case m.exists("/lib/functions.sh"): // OpenWrt: group_add_next prints the group's number
		return m.all([]string{"/bin/sh", "-c", `. /lib/functions.sh && user_add "$1" "" "$(group_add_next "$1")" "$1" /var /bin/false`, "sh", s.name})
	}
	return "", errors.New("there is neither useradd nor adduser to make it; make it by hand, or name another one by --user")
}

func (m *Machine) all(args []string) (string, error) { return (&command{args: args}).do(m) }

func (m *Machine) exists(path string) bool {
	_, err := os.Stat(m.at(path))
	return err == nil
}

var errNoUser = errors.New("there is none of that name")

// lookup finds a number in /etc/passwd or /etc/group. Not by os/user: the machine may be
// another than this one. Users that a directory service knows are asked of getent.
func (m *Machine) lookup(table, name string) (int, error) {
	if name == "" || name == "root" {
		return 0, nil
	}
	b, err := os.ReadFile(m.at("/etc/" + table))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if n, ok := entry(string(b), name); ok {
		return n, nil
	}
	if !m.image && m.Has("getent") {
		if said, err := m.Run("getent", table, name); err == nil {
			if n, ok := entry(said, name); ok {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("%s %s: %w", map[string]string{"passwd": "user", "group": "group"}[table], name, errNoUser)
}

func entry(text, name string) (int, bool) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) >= 3 && f[0] == name {
			n, err := strconv.Atoi(f[2])
			return n, err == nil
		}
	}
	return 0, false
}

// primaryGroup is a user's.
func (m *Machine) primaryGroup(user string) (int, error) {
	if user == "" || user == "root" {
		return 0, nil
	}
	b, err := os.ReadFile(m.at("/etc/passwd"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) >= 4 && f[0] == user {
			return strconv.Atoi(f[3])
		}
	}
	return m.lookup("group", user)
}

// protect gives a file its mode and owner. In another root a user that is not there yet
// stays root, and a note says so. The group is the user's own one.
func (m *Machine) protect(at string, mode fs.FileMode, o owner) error {
	uid, err := m.lookup("passwd", o.user)
	if err == nil {
		var gid int
		if gid, err = m.primaryGroup(o.group); err == nil {
			err = chown(at, uid, gid)
		}
	}
	// An image can also be made by who is not root; its maker sets the owners then.
	if err != nil && !(m.image && (errors.Is(err, errNoUser) || errors.Is(err, fs.ErrPermission))) {
		return err
	}
	return os.Chmod(at, mode) // after chown, which clears bits
}
