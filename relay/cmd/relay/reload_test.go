package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// garbage is in files that are wrong, and must not get into the log.
const garbage = "hunter2-is-in-the-file"

// shelf is a setting of the test: it takes any text but garbage.
func shelf(files ...string) (*watched, *[]string) {
	applied := new([]string)
	return &watched{
		settings: []string{"RELAY_SHELF"}, files: files,
		apply: func(texts []string) ([]any, error) {
			text := strings.Join(texts, "+")
			if strings.Contains(text, garbage) {
				return nil, errors.New("it holds garbage")
			}
			*applied = append(*applied, text)
			return []any{"books", len(texts)}, nil
		},
	}, applied
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Each step changes files, or not, and looks once.
func TestLook(t *testing.T) {
	const (
		refused  = `level=ERROR msg="not reloaded; what was in force stays" setting=RELAY_SHELF reason="it holds garbage"`
		reloaded = "level=INFO msg=reloaded setting=RELAY_SHELF books=2"
		back     = `level=INFO msg="what is in force is in the file again" setting=RELAY_SHELF`
		away     = `no such file or directory"`
	)
	type step struct {
		one, two string // empty: as it is; -: away
		asked    bool
		log      string // a part of it; empty: nothing is said
		inForce  string
	}
	for name, steps := range map[string][]step{
		"nothing happens":            {{inForce: "a+b"}, {asked: true, inForce: "a+b"}},
		"a change":                   {{one: "c", log: reloaded, inForce: "c+b"}, {inForce: "c+b"}},
		"a change and back":          {{two: "d", log: reloaded, inForce: "a+d"}, {two: "b", log: reloaded, inForce: "a+b"}},
		"what moves is another text": {{one: "a+b", two: "c", log: reloaded, inForce: "a+b+c"}, {one: "a", two: "b+c", log: reloaded, inForce: "a+b+c"}},
		"garbage": {
			{one: garbage, inForce: "a+b"}, {log: refused, inForce: "a+b"}, {inForce: "a+b"}, {inForce: "a+b"},
			{one: garbage + "2", log: refused, inForce: "a+b"}, {inForce: "a+b"},
			{one: "c", log: reloaded, inForce: "c+b"},
			{one: garbage, inForce: "c+b"}, {log: refused, inForce: "c+b"}, {one: "c", log: back, inForce: "c+b"}, {inForce: "c+b"},
		},
		"garbage for a moment":  {{one: garbage, inForce: "a+b"}, {one: "a", inForce: "a+b"}, {one: garbage, inForce: "a+b"}, {one: "c", log: reloaded, inForce: "c+b"}},
		"whoever asks is told":  {{one: garbage, asked: true, log: refused, inForce: "a+b"}, {inForce: "a+b"}, {asked: true, log: refused, inForce: "a+b"}},
		"a file is away":        {{two: "-", inForce: "a+b"}, {log: away, inForce: "a+b"}, {inForce: "a+b"}, {two: "b", log: back, inForce: "a+b"}},
		"away for a moment":     {{two: "-", inForce: "a+b"}, {two: "d", log: reloaded, inForce: "a+d"}},
		"away, and then faulty": {{two: "-", inForce: "a+b"}, {log: away, inForce: "a+b"}, {two: garbage, log: refused, inForce: "a+b"}, {two: "d", log: reloaded, inForce: "a+d"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files := []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}
			put(t, files[0], "a")
			put(t, files[1], "b")
			w, applied := shelf(files...)
			var p prepared
			if err := p.follow(w); err != nil || len(p.watched) != 1 {
				t.Fatal(err)
			}
			for i, s := range steps {
				for j, text := range []string{s.one, s.two} {
					if text == "-" {
						if err := os.Remove(files[j]); err != nil {
							t.Fatal(err)
						}
					} else if text != "" {
						put(t, files[j], text)
					}
				}
				var log strings.Builder
				seen := ""
				w.seen = func(result string) { seen += result }
				said := w.look(slog.New(slog.NewTextHandler(&log, nil)), s.asked)
				got := log.String()
				if said != (s.log != "") || said != (got != "") || !strings.Contains(got, s.log) || strings.Count(got, "\n") > 1 {
					t.Errorf("step %d: said %t %q, want %q", i+1, said, got, s.log)
				}
				if want := map[string]string{reloaded: "reloaded", refused: "failed", away: "failed", back: "restored"}[s.log]; seen != want {
					t.Errorf("step %d: %q is counted, want %q", i+1, seen, want)
				}
				if strings.Contains(got, garbage) {
					t.Errorf("step %d: quoted: %s", i+1, got)
				}
				if last := (*applied)[len(*applied)-1]; last != s.inForce {
					t.Errorf("step %d: %q is in force, want %q", i+1, last, s.inForce)
				}
			}
		})
	}
}

// What cannot be read at the start is a fault then, and what can be read only once is
// not looked at again.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	var p prepared
	w, _ := shelf(file)
	if err := p.follow(w); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	put(t, file, garbage)
	if err := p.follow(w); err == nil || strings.Contains(err.Error(), garbage) {
		t.Errorf("garbage: %v", err)
	}
	put(t, file, strings.Repeat("x", maxFile+1))
	if err := p.follow(w); err == nil || !strings.Contains(err.Error(), "has more than") {
		t.Errorf("too much: %v", err)
	}
	once, applied := shelf(os.DevNull) // as /dev/fd/63 of a shell, it is no regular file
	if err := p.follow(once); err != nil || len(*applied) != 1 {
		t.Errorf("a pipe: %v", err)
	}
	if len(p.watched) != 0 {
		t.Errorf("%d are watched", len(p.watched))
	}
	// A file that turns into something else is not opened.
	put(t, file, "a")
	if err := p.follow(w); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	w.look(slog.New(slog.NewTextHandler(&log, nil)), true)
	if !strings.Contains(log.String(), "file is not a regular file") {
		t.Errorf("got %s", log.String())
	}
}

// Looks come with the ticks and with SIGHUP, which is always answered.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		put(t, file, "a")
		for _, every := range []time.Duration{10 * time.Second, 0} {
			put(t, file, "a")
			w, applied := shelf(file)
			var p prepared
			if err := p.follow(w); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			hangups := make(chan os.Signal, 1)
			var log strings.Builder
			ended := make(chan bool)
			go func() {
				defer close(ended)
				reload(ctx, p.watched, hangups, every, func() {}, slog.New(slog.NewTextHandler(&log, nil)))
			}()
			hangups <- syscall.SIGHUP
			synctest.Wait()
			if n := strings.Count(log.String(), `msg="reloaded: nothing changed"`); n != 1 {
				t.Errorf("every %v: told %d times that nothing changed:\n%s", every, n, log.String())
			}
			put(t, file, "b")
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := strings.Join(*applied, " "); every > 0 && got != "a b" || every == 0 && got != "a" {
				t.Errorf("every %v: %s after an hour", every, got)
			}
			put(t, file, "c")
			hangups <- syscall.SIGHUP
			synctest.Wait()
			if got := (*applied)[len(*applied)-1]; got != "c" {
				t.Errorf("every %v: %s after SIGHUP", every, got)
			}
			cancel()
			<-ended
		}
	})
}
