//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"time"
)

// options are how much is measured.
type options struct {
	rounds  int
	length  time.Duration // of each measurement
	idle    int           // bridges
	streams int           // idle ones
	settle  time.Duration // before memory is looked at
	run     *regexp.Regexp
	whose   *regexp.Regexp // subjects
	tiny    bool
}

// A figure is measured in rounds: in each, every subject once.
type figure struct {
	name     string
	subjects []string
	rounds   int  // at most; 0: options.rounds
	more     bool // of a kind that -tiny has an example of already
	cold     bool // no warm-up: it takes long, and starts programs of its own
	measure  func(b *bench, ctx context.Context, subject string, add func(metric string, value float64)) error
}

// A bench is one run of the program.
type bench struct {
	*lab
	options
	book *book
	raw  map[string]*rawWorld // by subject
	log  io.Writer            // what is going on
}

// figures are all that there is, in the order in which they are measured.
func figures() []figure {
	var all []figure
	for _, f := range [][]figure{
		throughputFigures(), latencyFigures(), churnFigures(), idleFigures(), rawFigures(), bridgeFigures(), parkFigures(), pathFigures(),
	} {
		all = append(all, f...)
	}
	return all
}

// close ends what was started.
func (b *bench) close() {
	for _, w := range b.raw {
		w.close()
	}
	b.lab.close()
}

// runAll measures the figures that the options name. A figure that fails is noted, and
// does not keep the others from being measured.
func (b *bench) runAll(ctx context.Context) (failed int) {
	for _, f := range figures() {
		if !b.run.MatchString(f.name) || b.tiny && f.more || ctx.Err() != nil {
			continue
		}
		began := time.Now()
		fmt.Fprintf(b.log, "%s ", f.name)
		err := b.runFigure(ctx, f)
		fmt.Fprintf(b.log, " %.1fs\n", time.Since(began).Seconds())
		if err != nil && ctx.Err() == nil {
			failed++
			fmt.Fprintln(b.log, "  failed:", err)
			b.book.note(fmt.Sprintf("%s failed: %v", f.name, err))
		}
	}
	return failed
}

func (b *bench) runFigure(ctx context.Context, f figure) error {
	rounds := b.rounds
	if f.rounds > 0 {
		rounds = min(rounds, f.rounds)
	}
	first := -1 // the warm-up
	if f.cold {
		first = 0
	}
	subjects := b.subjects(f)
	for round := first; round < rounds; round++ {
		for i := range subjects {
			subject := subjects[(i+max(round, 0))%len(subjects)] // whoever is first differs
			err := f.measure(b, ctx, subject, func(metric string, value float64) {
				if round >= 0 {
					b.book.add(metric, subject, value)
				}
			})
			if err != nil {
				return fmt.Errorf("%s: %w", subject, err)
			}
		}
		fmt.Fprint(b.log, ".")
	}
	return nil
}

// subjects are those of a figure that the options want, and the other build beside ours.
func (b *bench) subjects(f figure) (wanted []string) {
	for _, s := range f.subjects {
		if !b.whose.MatchString(s) {
			continue
		}
		wanted = append(wanted, s)
		if o := otherOf[s]; b.against != "" && o != "" {
			wanted = append(wanted, o)
		}
	}
	return wanted
}

// allChains are who is compared where users and targets speak TCP.
var allChains = []string{ours, chainFrames, oursTLS, chainTLS, chainSplice}
