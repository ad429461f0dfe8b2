//go:build unix

package service

import (
	"errors"
	"os"
)

func chown(path string, uid, gid int) error { return os.Chown(path, uid, gid) }

var errNotWindows = errors.New("services of Windows can be installed on Windows only; --print shows what would be")

func (s *windowsService) do(*Machine) (string, error) { return "", errNotWindows }
func (s *windowsACL) do(*Machine) (string, error)     { return "", errNotWindows }

// Privileged says whether this process may install services.
func Privileged() bool { return os.Geteuid() == 0 }
