package handoff

import (
	"context"
	"io"
	"net"
	"time"

	"websocketbridge/signaler"
)

// SetTimes shortens what a test waits for.
func (s *Source) SetTimes(signal, idle time.Duration) { s.signalTime, s.idleTime = signal, idle }

// Split is what a reader makes of a stream: the objects, and "!" and its error for
// garbage. The stream's own end is no part of it.
func Split(from io.Reader, lines bool) (got []string, err error) {
	r := newReader(from, lines)
	for {
		b, err := r.next(func() {})
		if _, garbage := err.(errGarbage); garbage {
			got = append(got, "!"+err.Error())
			if !lines {
				return got, nil
			}
			continue
		}
		if err != nil {
			return got, err
		}
		got = append(got, string(b))
	}
}

var ParseAnswer = parseAnswer

// ServeUnix is Run with a listener of the test's.
func (s *Source) ServeUnix(ctx context.Context, ln net.Listener, ask func([]byte) *signaler.Refusal) error {
	return s.serveUnix(ctx, ln, ask)
}
