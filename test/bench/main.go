//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal ends what was started, a second one this program
	if len(os.Args) == 3 && os.Args[1] == hopArgument {
		stop()
		if err := runHop(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// longest is how long a run may take: whatever hangs, it ends.
const longest = 45 * time.Minute

func run(ctx context.Context, args []string, out, log io.Writer) error {
	b := &bench{book: newBook(), raw: make(map[string]*rawWorld), log: log}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	flags.IntVar(&b.rounds, "rounds", 5, "how often each figure is measured, after a warm-up")
	flags.DurationVar(&b.length, "length", time.Second, "of each measurement")
	flags.IntVar(&b.idle, "idle", 20_000, "idle raw bridges")
	flags.IntVar(&b.streams, "streams", 2_000, "idle streams")
	flags.DurationVar(&b.settle, "settle", 5*time.Second, "before memory is looked at")
	pattern := flags.String("run", "", "figures to measure, as a regular expression; -list shows them")
	of := flags.String("of", "", "who is measured, as a regular expression: ours; ours, TLS; WebSocket frames ×3; and so on")
	against := flags.String("against", "", "folder with relay, bridge and deviceagent of another build, to be measured in turn with this one")
	list := flags.Bool("list", false, "print the names of the figures")
	flags.BoolVar(&b.tiny, "tiny", false, "a moment of everything, to see that it works; the numbers mean nothing")
	file := flags.String("json", "", "file for all that was measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not understood; see -h", flags.Arg(0))
	}
	if *list {
		for _, f := range figures() {
			fmt.Fprintln(out, f.name)
		}
		return nil
	}
	var err error
	if b.run, err = regexp.Compile(*pattern); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if b.whose, err = regexp.Compile(*of); err != nil {
		return fmt.Errorf("-of: %w", err)
	}
	if b.rounds < 1 || b.idle < 1 || b.streams < 1 || b.length <= 0 || b.settle < 0 {
		return errors.New("-rounds, -length, -idle and -streams have to be more than nothing")
	}
	if b.tiny {
		b.book.note("-tiny: the numbers mean nothing")
		b.rounds, b.length, b.idle, b.streams, b.settle = 1, 50*time.Millisecond, 100, 50, 50*time.Millisecond
	}
	ctx, cancel := context.WithTimeoutCause(ctx, longest, fmt.Errorf("it took longer than %v", longest))
	defer cancel()
	began := time.Now()
	if b.lab, err = newLab(ctx, *against); err != nil {
		return err
	}
	defer b.close()
	fmt.Fprintf(log, "built in %.1fs\n", time.Since(began).Seconds())
	failed := b.runAll(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	fmt.Fprintf(out, "%s; %d rounds of %v, %s\n\n", environment(), b.rounds, b.length, time.Since(began).Round(time.Second))
	markdown(out, b.book)
	if *file != "" {
		if err := saveJSON(*file, b.book); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d figures failed, see above", failed)
	}
	return nil
}

func saveJSON(name string, b *book) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(writeJSON(f, b), f.Close())
}
