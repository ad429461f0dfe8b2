package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"

	"websocketbridge/deviceagent/socket"
)

// maxReport is far more than an agent with all its bridges has to say.
const maxReport = 4 << 20

// What Ask can say besides.
var (
	ErrNotRunning = errors.New("no agent answers")
	ErrForbidden  = errors.New("this user may not ask")
)

// Ask asks the agent at address for its Report, in JSON. An empty address means the
// first of Defaults where one answers.
func Ask(ctx context.Context, address string) ([]byte, error) {
	if address == Off {
		return nil, fmt.Errorf("%w: its status socket is off", ErrNotRunning)
	}
	if address != "" {
		return ask(ctx, address)
	}
	var last error
	for _, at := range Defaults() {
		b, err := ask(ctx, at)
		if err == nil || !errors.Is(err, ErrNotRunning) {
			return b, err
		}
		if last == nil {
			last = err
		}
	}
	return nil, cmp.Or(last, ErrNotRunning)
}

func ask(ctx context.Context, address string) ([]byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", address)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w the agent at %s; its own user and root may", ErrForbidden, address)
	case errors.Is(err, fs.ErrNotExist), socket.Nobody(err):
		return nil, fmt.Errorf("%w at %s", ErrNotRunning, address)
	case err != nil && ctx.Err() != nil: // a dial that was cut short has words of its own
		return nil, fmt.Errorf("ask the agent at %s: %w", address, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("ask the agent at %s: %w", address, err)
	}
	defer c.Close()
	if isAbstract(address) {
		if err := checkPeer(c.(*net.UnixConn)); err != nil {
			return nil, fmt.Errorf("ask the agent at %s: %w", address, err)
		}
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	b, err := io.ReadAll(io.LimitReader(c, maxReport+1))
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case len(b) > maxReport:
		err = errors.New("its answer does not end")
	case err == nil && len(b) == 0:
		err = errors.New("it closed the connection without an answer; it may be busy, or not allow this user")
	case err == nil && !json.Valid(b):
		err = errors.New("its answer is no JSON; is it an agent?")
	}
	if err != nil {
		return nil, fmt.Errorf("ask the agent at %s: %w", address, err)
	}
	return b, nil
}

// Parse reads what Ask returned. Members that this version does not know are passed
// over.
func Parse(b []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read the agent's answer: %w", err)
	}
	return r, nil
}
