package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"websocketbridge/relay/metrics"
)

// A watched is what one setting, or a few that belong together, take from files. The
// files are looked at again at SIGHUP and every RELAY_RELOAD, and what they hold then is
// put in force.
//
// Why looking and not inotify: Kubernetes swaps a link two levels above the file, network
// and FUSE mounts tell nothing, and to read a few KB every 10 s costs nothing.
type watched struct {
	settings []string                          // the variables, for the log
	files    []string                          // theirs, in the same order
	read     func(path string) (string, error) // nil: readFile

	// apply puts in force what the files hold, and says in public terms what that is,
	// for the log. After an error everything is as it was. Neither quotes the files.
	apply func(texts []string) (inForce []any, err error)

	seen func(result string) // hears what a look has found, in words of package metrics; may be nil

	inForce digest // of what was applied last
	refused digest // of what apply refused last
	why     error  // that it refused it
	faults  int    // looks in a row that found something else than what is in force
	told    string // which fault the log has; empty: none
}

// A digest stands for what files hold, so that no secret is kept to compare with.
type digest [sha256.Size]byte

func digestOf(texts []string) (d digest) {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d\n%s", len(text), text)
	}
	h.Sum(d[:0])
	return d
}

// follow reads the files for the first time, and has them watched.
func (p *prepared) follow(w *watched) error {
	texts, err := w.texts()
	if err == nil {
		_, err = w.apply(texts)
	}
	if err != nil {
		return err
	}
	w.inForce = digestOf(texts)
	p.watch(w)
	return nil
}

// followSecret watches the file of a secret that package settings has read already: text.
// A secret that is in the environment itself cannot change.
func (p *prepared) followSecret(setting, text string, read func(path string) (string, error), apply func(text string) ([]any, error)) {
	setting += "_FILE"
	if path, ok := os.LookupEnv(setting); ok {
		p.watch(&watched{
			settings: []string{setting}, files: []string{path}, read: read, inForce: digestOf([]string{text}),
			apply: func(texts []string) ([]any, error) { return apply(texts[0]) },
		})
	}
}

// watch leaves out what can be read only once, as <(command) of a shell.
func (p *prepared) watch(w *watched) {
	for _, path := range w.files {
		if checkRegular(path) != nil {
			return
		}
	}
	p.watched = append(p.watched, w)
}

// texts are what the files hold.
func (w *watched) texts() ([]string, error) {
	read := w.read
	if read == nil {
		read = readFile
	}
	var texts []string
	for _, path := range w.files {
		text, err := read(path)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// look compares the files with what is in force, and applies what is new. It says
// whether it had something to tell.
//
// A fault is told when the next look finds one too: a file may be away or half written
// for a moment, and a certificate and its key come one after the other. Whoever asks, by
// SIGHUP, is told at once.
func (w *watched) look(log *slog.Logger, asked bool) bool {
	log = log.With("setting", strings.Join(w.settings, ", "))
	texts, fault := w.textsAgain()
	d := digestOf(texts)
	which := string(d[:])
	switch {
	case fault != nil:
		which = fault.Error()
	case d == w.inForce:
		back := w.told != ""
		w.faults, w.told = 0, ""
		if back {
			w.saw(metrics.ReloadRestored)
			log.Info("what is in force is in the file again")
		}
		return back
	case d == w.refused && !asked:
		fault = w.why
	default:
		inForce, err := w.apply(texts)
		if err == nil {
			w.inForce, w.faults, w.told = d, 0, ""
			w.saw(metrics.ReloadDone)
			log.Info("reloaded", inForce...)
			return true
		}
		w.refused, w.why, fault = d, err, err
	}
	w.faults++
	if !asked && (w.faults < 2 || w.told == which) {
		return false
	}
	w.told = which
	w.saw(metrics.ReloadFailed)
	log.Error("not reloaded; what was in force stays", "reason", fault)
	return true
}

func (w *watched) saw(result string) {
	if w.seen != nil {
		w.seen(result)
	}
}

// textsAgain is texts for files that may be something else by now: to open a named pipe
// would wait for ever.
func (w *watched) textsAgain() ([]string, error) {
	for _, path := range w.files {
		if err := checkRegular(path); err != nil {
			return nil, err
		}
	}
	return w.texts()
}

// reload looks at everything that is watched at each hangup and every so often (0: at
// hangups only) until ctx ends, and calls after when something may have changed. One goroutine does it all, so that nothing is applied
// twice at once, or out of order.
func reload(ctx context.Context, all []*watched, hangups <-chan os.Signal, every time.Duration, after func(), log *slog.Logger) {
	var ticks <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		ticks = t.C
	}
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			asked = true
		case <-ticks:
		}
		told := false
		for _, w := range all {
			told = w.look(log, asked) || told
		}
		if told {
			after()
		}
		if asked && !told {
			log.Info("reloaded: nothing changed")
		}
	}
}

// maxFile is in bytes: many certificates, and far from a wrong path.
const maxFile = 1 << 20

// readFile reads a file as it is, whatever it may hold.
func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return string(b), err
}

func checkRegular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	return err
}
