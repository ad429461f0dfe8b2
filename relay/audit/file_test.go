//go:build unix

package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/audit"
	"websocketbridge/test/testlog"
)

// running is a Log that is written to a file.
type running struct {
	*audit.Log
	t    *testing.T
	log  testlog.Buffer
	stop func()
}

func runFile(t *testing.T, cfg audit.Config) *running {
	t.Helper()
	r := &running{t: t}
	cfg.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	l, err := audit.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Log = l
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(r.stop)
	return r
}

// open records a bridge that opens, which is written when it returns.
func (r *running) open(i int) {
	r.t.Helper()
	if err := r.Record(context.Background(), opened(i)); err != nil {
		r.t.Fatal(err)
	}
}

// ids are the bridges in a file.
func ids(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parse(t, string(b)) {
		out = append(out, p.BridgeID)
	}
	return out
}

func wantIDs(t *testing.T, path string, want ...string) {
	t.Helper()
	if got := ids(t, path); !slices.Equal(got, want) {
		t.Errorf("%s has %v, want %v", filepath.Base(path), got, want)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for _, sync := range []bool{false, true} {
		r := runFile(t, audit.Config{Path: path, Sync: sync})
		r.open(1)
		r.stop()
	}
	wantIDs(t, path, "1", "1") // appended
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Whoever moves or deletes the file, with or without SIGHUP: no line is lost.
func TestFileIsMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	r := runFile(t, audit.Config{Path: path})
	r.open(1)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	r.open(2)
	wantIDs(t, path+".1", "1")
	wantIDs(t, path, "2")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.Reopen()
	r.open(3)
	wantIDs(t, path, "3")
	if err := os.Truncate(path, 0); err != nil { // copytruncate
		t.Fatal(err)
	}
	r.open(4)
	wantIDs(t, path, "4")
}

// A folder that is away is a failure like a full disk, and heals.
func TestFolderIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	path := filepath.Join(dir, "audit.jsonl")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := runFile(t, audit.Config{Path: path, Wait: 50 * time.Millisecond})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Record(context.Background(), opened(1)); !errors.Is(err, audit.ErrNotKept) || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Record(context.Background(), closedOf(2))
	r.stop()
	wantIDs(t, path, "2")
}

func TestDevFull(t *testing.T) {
	r := runFile(t, audit.Config{Path: "/dev/full", Wait: 50 * time.Millisecond, MaxSize: 1, Sync: true})
	if err := r.Record(context.Background(), opened(1)); !errors.Is(err, audit.ErrNotKept) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

func TestRotation(t *testing.T) {
	for _, keep := range []int{0, 3} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "audit[1].jsonl")
			mine := path + ".1" // logrotate's, not ours to delete
			if err := os.WriteFile(mine, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r := runFile(t, audit.Config{Path: path, MaxSize: 500, Keep: keep})
			const lines = 50
			var want, got []string
			for i := range lines {
				r.open(i)
				want = append(want, fmt.Sprint(i))
			}
			r.stop()
			names, err := filepath.Glob(strings.ReplaceAll(path, "[", `\[`) + ".2*Z*")
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(names)
			for _, name := range append(names, path) {
				got = append(got, ids(t, name)...)
				if info, err := os.Stat(name); err != nil || info.Size() > 500 || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", name, info, err)
				}
			}
			if keep > 0 {
				want = want[lines-len(got):]
				if len(names) != keep {
					t.Errorf("%d renamed files", len(names))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v", got)
			}
			if _, err := os.Stat(mine); err != nil {
				t.Error(err)
			}
			if r.log.String() != "" {
				t.Errorf("said:\n%s", &r.log)
			}
		})
	}
}

// A crash in the middle of a line spoils that line only.
func TestCutLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(`{"v":1,"seq":7,"ev`), 0o600); err != nil {
		t.Fatal(err)
	}
	runFile(t, audit.Config{Path: path}).open(1)
	wantIDs(t, path, "1")
}

// To open a pipe would wait for its reader.
func TestPipeIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.New(audit.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "neither a file nor a device") {
		t.Errorf("got %v", err)
	}
}

// A limit of the process on the size of files is a disk that gets full in the middle of
// a line. What was written of it is taken back.
func TestFileGetsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	r := runFile(t, audit.Config{Path: path, Wait: 50 * time.Millisecond})
	r.open(1)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(info.Size()) + 20, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err = r.Record(context.Background(), opened(2))
	size, serr := os.Stat(path)
	if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil || serr != nil {
		t.Fatal(rerr, serr)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("got %v", err)
	}
	if size.Size() != info.Size() {
		t.Errorf("%d bytes of a line are left", size.Size()-info.Size())
	}
	r.Record(context.Background(), closedOf(3))
	r.stop()
	wantIDs(t, path, "1", "3")
	if b, _ := os.ReadFile(path); strings.Count(string(b), "\n") != 2 {
		t.Errorf("the file has\n%s", b)
	}
}
