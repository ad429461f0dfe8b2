package fake

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"websocketbridge/signaler"
)

// errGone: the device ended the connection; there is nobody to tell why.
var errGone = errors.New("device disconnected")

func (h *Hub) serveSignals(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := q.Get("deviceId")
	if err := checkDeviceID(id); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	up := websocket.Upgrader{HandshakeTimeout: writeTimeout, CheckOrigin: func(*http.Request) bool { return true }} // localOnly has
	if !websocket.IsWebSocketUpgrade(r) {
		up.Upgrade(w, r, nil) // answers what is wrong
		return
	}
	// Before the 101: whoever has read it can be signalled.
	ctx, l := h.attach(r.Context(), id)
	defer l.detach()
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer ws.Close()
	h.log.Info("device listens", "device", id)
	reason := l.converse(ctx, ws)
	h.log.Info("device left", "device", id, "reason", reason)
}

// converse runs the connection until it ends and says why it did.
func (l *listener) converse(ctx context.Context, ws *websocket.Conn) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.cancel(l.readReplies(ws)) })
	err := l.writeDeliveries(ctx, ws)
	l.detach() // whatever the device still says, it is offline now

	stop := time.AfterFunc(closeTimeout, func() { ws.Close() })
	defer stop.Stop()
	if code, reason := closeFor(err); code != 0 {
		ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(closeTimeout))
		wg.Wait()
		// Closing with unread bytes would make TCP throw the close frame away.
		for e := error(nil); e == nil; _, _, e = ws.NextReader() {
		}
	}
	ws.Close()
	wg.Wait()
	return err
}

// closeFor returns what to tell the device; 0: nothing, it has gone.
func closeFor(err error) (code int, reason string) {
	switch {
	case errors.Is(err, signaler.ErrTakenOver):
		return closeTakenOver, "taken_over: another connection of this device"
	case errors.Is(err, errReply):
		return websocket.ClosePolicyViolation, errReply.Error()
	case errors.Is(err, errGone):
		return 0, ""
	}
	return websocket.CloseGoingAway, "the hub stops"
}

// writeDeliveries sends what the queue has, and pings, until ctx ends.
func (l *listener) writeDeliveries(ctx context.Context, ws *websocket.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { ping(ctx, cancel, ws) })
	defer wg.Wait()
	defer cancel(nil)
	for {
		it, err := l.next(ctx)
		if err != nil {
			return err
		}
		b, err := delivery{ID: it.id, Answers: it.call != nil, Signal: it.payload}.encode()
		if err != nil {
			return err
		}
		ws.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err := ws.WriteMessage(websocket.TextMessage, b); err != nil {
			return errors.Join(errGone, err)
		}
	}
}

func ping(ctx context.Context, cancel context.CancelCauseFunc, ws *websocket.Conn) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)); err != nil {
				cancel(errors.Join(errGone, err))
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// readReplies takes the device's answers until the connection ends.
func (l *listener) readReplies(ws *websocket.Conn) error {
	alive := func(string) error { return ws.SetReadDeadline(time.Now().Add(deadAfter)) }
	ws.SetPongHandler(alive)
	alive("")
	for {
		kind, in, err := ws.NextReader()
		if err != nil {
			return gone(err)
		}
		// Not SetReadLimit, which would end the connection before a reason is sent.
		b, err := io.ReadAll(io.LimitReader(in, maxReply+1))
		if err != nil {
			return gone(err)
		}
		alive("")
		r, err := parseReply(b)
		if err != nil || len(b) > maxReply || kind != websocket.TextMessage {
			return errReply
		}
		l.settle(*r.ID, r.Refuse)
	}
}

// gone says how the device left.
func gone(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.Join(errGone, errors.New("it sent no frame for "+deadAfter.String()))
	case websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway):
		return errGone
	}
	return errors.Join(errGone, err)
}
