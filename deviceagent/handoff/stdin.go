package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"websocketbridge/signaler"
)

// input is what standard input had next.
type input struct {
	payload []byte
	err     error // errGarbage: and there may be more
}

// runStdin answers line by line.
func (s *Source) runStdin(ctx context.Context, ask func([]byte) *signaler.Refusal) error {
	// A read of standard input cannot be ended from here. So one goroutine reads as
	// long as there is something, and what one Run does not take, the next one does.
	// It ends with the input, at the latest with the process.
	s.input.Do(func() { go s.readInput() })
	s.listening("")
	for {
		select {
		case <-ctx.Done():
			return nil
		case in, ok := <-s.items:
			var garbage errGarbage
			switch {
			case !ok || errors.Is(in.err, io.EOF):
				return ErrEnded
			case errors.As(in.err, &garbage):
				if err := s.say(badSignal(in.err.Error())); err != nil {
					return err
				}
			case in.err != nil:
				return fmt.Errorf("handoff: read standard input: %w", in.err)
			default:
				if err := s.say(ask(in.payload)); err != nil {
					return err
				}
			}
		}
	}
}

func (s *Source) say(no *signaler.Refusal) error {
	if _, err := s.cfg.Out.Write(Answer(no)); err != nil {
		return fmt.Errorf("handoff: answer on standard output: %w", err)
	}
	return nil
}

func (s *Source) readInput() {
	defer close(s.items)
	r := newReader(s.cfg.In, true)
	for {
		payload, err := r.next(func() {})
		s.items <- input{bytes.Clone(payload), err}
		var garbage errGarbage
		if err != nil && !errors.As(err, &garbage) {
			return
		}
	}
}
