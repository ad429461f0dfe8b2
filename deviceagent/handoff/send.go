package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"websocketbridge/deviceagent/socket"
	"websocketbridge/signaler"
)

// Send hands one signal over, as it came from the hub, and returns the agent's
// answer: nil accepts. token is for HTTP. The address cannot be Stdin. An error is
// that there was no answer; it quotes neither the signal nor the token.
func Send(ctx context.Context, to Address, token string, signal []byte) (*signaler.Refusal, error) {
	signal = bytes.TrimSpace(signal)
	var (
		b   []byte
		err error
	)
	switch to.Kind {
	case Unix:
		b, err = sendUnix(ctx, to.At, signal)
	case HTTP:
		b, err = sendHTTP(ctx, to.At, token, signal)
	default:
		err = errors.New("needs unix:PATH or http:HOST:PORT")
	}
	if err == nil && len(b) == 0 {
		err = errors.New("the agent closed the connection without an answer")
	}
	var no *signaler.Refusal
	if err == nil {
		no, err = parseAnswer(b)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("hand over to %s: %w", to, err)
	}
	return no, nil
}

func sendUnix(ctx context.Context, path string, signal []byte) ([]byte, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist), socket.Nobody(err):
		return nil, errors.New("no agent listens there")
	case errors.Is(err, os.ErrPermission):
		return nil, errors.New("this user may not connect; make it a member of the socket's group")
	case err != nil:
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, wrote := c.Write(append(bytes.Clone(signal), '\n'))
	if wrote == nil {
		c.(*net.UnixConn).CloseWrite()
	}
	b, err := io.ReadAll(io.LimitReader(c, maxAnswer)) // also of an agent that did not want to read it all
	if len(b) > 0 {
		return b, nil
	}
	return nil, errors.Join(wrote, err)
}

func sendHTTP(ctx context.Context, at, token string, signal []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at+Path, bytes.NewReader(signal))
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(token, "\r\n") {
		return nil, errors.New("the token has a line break")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := direct.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if _, bad := parseAnswer(b); bad != nil {
		return nil, fmt.Errorf("it answers %s, and not as an agent does", resp.Status)
	}
	return b, nil
}
