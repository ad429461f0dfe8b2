package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// A file is followed by its name: whatever moves it, the next batch goes to a new one.
type file struct {
	path string
	max  int64
	keep int
	sync bool
	log  *slog.Logger

	f      *os.File // nil: to be opened
	info   fs.FileInfo
	size   int64
	broken bool  // its last line has no end
	grown  int64 // where a file that could not be renamed is tried again

	renamed time.Time // when one was last; no two at once
}

// open opens or makes the file.
func (s *file) open() error {
	if info, err := os.Stat(s.path); err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeCharDevice == 0 {
		return fmt.Errorf("%s is neither a file nor a device", s.path) // to open a pipe would wait for its reader
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	s.f, s.info, s.size, s.broken, s.grown = f, info, info.Size(), false, 0
	if last := make([]byte, 1); info.Mode().IsRegular() && s.size > 0 {
		if _, err := f.ReadAt(last, s.size-1); err == nil {
			s.broken = last[0] != '\n'
		}
	}
	if s.sync && info.Mode().IsRegular() {
		s.syncDir() // or the name of a new file may be gone after a crash
	}
	return nil
}

func (s *file) syncDir() {
	if d, err := os.Open(filepath.Dir(s.path)); err == nil {
		d.Sync() // not every file system can
		d.Close()
	}
}

func (s *file) write(batch []byte) error {
	if s.f != nil {
		if info, err := os.Stat(s.path); err != nil || !os.SameFile(info, s.info) {
			s.reopen()
		}
	}
	if s.f == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if s.max > 0 && s.info.Mode().IsRegular() && s.size > 0 && s.size+int64(len(batch)) > max(s.max, s.grown) {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	if s.broken {
		batch = append([]byte{'\n'}, batch...)
	}
	n, err := s.f.Write(batch)
	if err == nil && s.sync && s.info.Mode().IsRegular() {
		err = s.f.Sync()
	}
	if err != nil {
		s.takeBack(n)
		s.reopen()
		return err
	}
	s.size += int64(n)
	s.broken = false
	return nil
}

// takeBack removes what was written of a batch that will be written again. It lets be
// what somebody else may have added behind it.
func (s *file) takeBack(n int) {
	if info, err := s.f.Stat(); err == nil && n > 0 && info.Mode().IsRegular() && info.Size() == s.size+int64(n) {
		s.f.Truncate(s.size)
	}
}

// rotate renames the file and opens a new one. One that cannot be renamed goes on to be
// used: a missing right to do so is no reason to have no lines.
func (s *file) rotate() error {
	// Each name sorts behind the one before, also of those that are deleted already, and
	// takes nobody's place.
	now, name := time.Now().UTC(), ""
	if !now.After(s.renamed) {
		now = s.renamed.Add(1)
	}
	for ; ; now = now.Add(1) {
		name = s.path + "." + now.Format("20060102T150405.000000000Z")
		if _, err := os.Lstat(name); err != nil {
			break
		}
	}
	s.renamed = now
	if err := os.Rename(s.path, name); err != nil {
		s.log.Error("audit log cannot be renamed; it grows on", "reason", err)
		s.grown = s.size + s.max
		return nil
	}
	s.reopen()
	if err := s.open(); err != nil {
		return err
	}
	s.prune()
	return nil
}

// renamed is what rotate has put behind a name.
var renamed = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z$`)

// prune deletes the oldest renamed files beyond keep.
func (s *file) prune() {
	if s.keep == 0 {
		return
	}
	dir, base := filepath.Split(s.path)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	var old []string
	for _, e := range entries {
		if name := e.Name(); len(name) > len(base) && name[:len(base)] == base && renamed.MatchString(name[len(base):]) {
			old = append(old, name)
		}
	}
	slices.Sort(old)
	for _, name := range old[:max(len(old)-s.keep, 0)] {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	if err != nil {
		s.log.Error("old audit logs cannot be deleted", "reason", err)
	}
}

func (s *file) reopen() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

func (s *file) close() { s.reopen() }

// A stream is a writer that may block for ever, such as a pipe that nobody reads. A
// write to it cannot be called off: it has a goroutine, which lives on after close only
// if it is stuck in one. The process ends with it.
type stream struct {
	w      io.Writer
	broken bool       // the last line has no end
	result chan error // of the write under way; nil: none is
}

func (s *stream) write(batch []byte) error {
	if s.result == nil {
		if s.broken {
			batch = append([]byte{'\n'}, batch...)
		}
		result := make(chan error, 1)
		s.result = result
		go writeStream(s.w, batch, result)
	}
	late := time.NewTimer(blocked)
	defer late.Stop()
	select {
	case err := <-s.result:
		s.result = nil
		s.broken = err != nil
		return err
	case <-late.C:
		return errBlocked
	}
}

func writeStream(w io.Writer, batch []byte, result chan<- error) {
	_, err := w.Write(batch)
	result <- err
}

func (s *stream) reopen() {}

func (s *stream) close() {}
