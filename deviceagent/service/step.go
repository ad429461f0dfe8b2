package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// What came of a step.
const (
	did       = "done"
	unchanged = "unchanged"
	skipped   = "skipped" // under another root
)

// A step is one thing to do. It does nothing if it is done already.
type step interface {
	what() string
	do(m *Machine) (outcome string, err error)
}

// A Machine is what steps are done on.
type Machine struct {
	// Run runs a program and returns what it has printed.
	Run func(name string, arg ...string) (string, error)
	// Has says whether a program is there.
	Has func(name string) bool

	root  string // before every path
	image bool   // root is no machine that runs: nothing is run
}

// at is where a path of the machine's is now.
func (m *Machine) at(p string) string {
	if m.root == "" {
		return p
	}
	return filepath.Join(m.root, p)
}

// makeParents makes the folders that a file is in, as the system's own are: others need
// to find what is in them.
func makeParents(at string) error {
	return os.MkdirAll(filepath.Dir(at), 0o755) // #nosec G301 -- /etc, /usr/local/bin and the like
}

// An owner is by name, "root" or "" for root.
type owner struct{ user, group string }

func (o owner) String() string {
	return fmt.Sprintf("%s:%s", orRoot(o.user), orRoot(o.group))
}

func orRoot(s string) string {
	if s == "" {
		return "root"
	}
	return s
}

// makeDir makes a folder.
type makeDir struct {
	path  string
	mode  fs.FileMode
	owner owner
}

func (s *makeDir) what() string { return fmt.Sprintf("folder %s (%o, %s)", s.path, s.mode, s.owner) }

func (s *makeDir) do(m *Machine) (string, error) {
	at := m.at(s.path)
	if err := makeParents(at); err != nil {
		return "", err
	}
	outcome := did
	if err := os.Mkdir(at, s.mode); errors.Is(err, fs.ErrExist) {
		outcome = unchanged
	} else if err != nil {
		return "", err
	}
	return outcome, m.protect(at, s.mode, s.owner)
}

// writeFile writes a file, at once or not at all.
type writeFile struct {
	path  string
	mode  fs.FileMode
	owner owner
	text  string
	from  string // copy this file, and no text
	keep  bool   // one that is there stays as it is, but for mode and owner
	shown bool   // by Print
}

func (s *writeFile) what() string {
	w := fmt.Sprintf("file %s (%04o, %s)", s.path, s.mode, s.owner)
	if s.from != "" {
		w += ", a copy of " + s.from
	}
	if s.keep {
		w += ", unless it is there"
	}
	return w
}

func (s *writeFile) do(m *Machine) (string, error) {
	at := m.at(s.path)
	want := []byte(s.text)
	if s.from != "" {
		var err error
		if want, err = os.ReadFile(s.from); err != nil {
			return "", err
		}
	}
	// Not by its name alone: what is protected below has to be the file itself.
	info, err := os.Lstat(at)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return "", errors.New("there is something that is no file")
	case err == nil && s.keep:
		return unchanged, m.protect(at, s.mode, s.owner)
	case err == nil:
		have, err := os.ReadFile(at)
		if err == nil && bytes.Equal(have, want) {
			return unchanged, m.protect(at, s.mode, s.owner)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := makeParents(at); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(at), "."+path.Base(filepath.ToSlash(at))+"-*") // 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = io.Copy(f, bytes.NewReader(want))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = m.protect(f.Name(), s.mode, s.owner)
	}
	if err == nil {
		err = os.Rename(f.Name(), at)
	}
	return did, err
}

// makeLink makes a symbolic link, as enabling a service is.
type makeLink struct{ path, target string }

func (s *makeLink) what() string { return fmt.Sprintf("link %s to %s", s.path, s.target) }

func (s *makeLink) do(m *Machine) (string, error) {
	at := m.at(s.path)
	if have, err := os.Readlink(at); err == nil && have == s.target {
		return unchanged, nil
	}
	if err := makeParents(at); err != nil {
		return "", err
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return did, os.Symlink(s.target, at)
}

// remove removes a file, or a folder with what is in it.
type remove struct {
	path string
	all  bool
}

func (s *remove) what() string { return "remove " + s.path }

func (s *remove) do(m *Machine) (string, error) {
	at := m.at(s.path)
	if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) {
		return unchanged, nil
	}
	if s.all {
		return did, os.RemoveAll(at)
	}
	return did, os.Remove(at)
}

// command runs a program of this machine's.
type command struct {
	args    []string
	mayFail bool // since what it would undo may not be there
}

func (s *command) what() string { return "run " + strings.Join(s.args, " ") }

func (s *command) do(m *Machine) (string, error) {
	if m.image {
		return skipped, nil
	}
	said, err := m.Run(s.args[0], s.args[1:]...)
	switch {
	case err == nil:
		return did, nil
	case s.mayFail:
		return unchanged, nil
	}
	if said = strings.TrimSpace(said); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return "", err
}
