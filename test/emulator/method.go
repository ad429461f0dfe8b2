package emulator

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// A methodRequest is a direct method, checked.
type methodRequest struct {
	Name    string
	Payload []byte        // JSON, or empty
	Respond time.Duration // how long the device may take
	Connect time.Duration // how long to wait for it to listen
}

// A methodAnswer is the device's.
type methodAnswer struct {
	Status  int
	Payload []byte // JSON, or empty
}

// A methodCall is one in flight.
type methodCall struct {
	done chan struct{} // closed once the rest is set
	methodAnswer
	err *hubError
}

// fail ends the call. The caller holds mu, and has taken it out of its
// attachment's calls.
func (c *methodCall) fail(err *hubError) {
	c.err = err
	close(c.done)
}

// parseMethod reads and checks the body of a call.
func parseMethod(body []byte) (methodRequest, *hubError) {
	in := struct {
		MethodName string          `json:"methodName"`
		Payload    json.RawMessage `json:"payload"`
		Respond    *int            `json:"responseTimeoutInSeconds"`
		Connect    int             `json:"connectTimeoutInSeconds"`
	}{}
	if err := json.Unmarshal(body, &in); err != nil {
		return methodRequest{}, errArgument("The body is not a direct method's JSON.")
	}
	respond := 30
	if in.Respond != nil {
		respond = *in.Respond
	}
	switch {
	case in.MethodName == "" || len(in.MethodName) > 100:
		return methodRequest{}, errArgument("methodName is missing or has more than 100 characters.")
	case strings.ContainsAny(in.MethodName, "$()<>@,;:\\\"/[]?={} \t#+\x00"):
		return methodRequest{}, errArgument("methodName has a character that is not allowed.")
	case respond < 5 || respond > 300:
		return methodRequest{}, errArgument("responseTimeoutInSeconds must be within [5; 300].")
	case in.Connect < 0 || in.Connect > 300:
		return methodRequest{}, errArgument("connectTimeoutInSeconds must be within [0; 300].")
	case len(in.Payload) > maxMethod:
		return methodRequest{}, errTooLarge(413, len(in.Payload), maxMethod)
	}
	return methodRequest{
		Name: in.MethodName, Payload: in.Payload,
		Respond: time.Duration(respond) * time.Second, Connect: time.Duration(in.Connect) * time.Second,
	}, nil
}

// invokeMethod calls a direct method and waits for the answer. nil and nil: ctx
// ended, so nobody waits.
func (h *Hub) invokeMethod(ctx context.Context, id identity, q methodRequest) (*methodAnswer, *hubError) {
	answer, err := h.invoke(ctx, id, q)
	h.count(func(s *Stats) {
		switch {
		case err != nil:
			s.Methods[err.Name]++
		case answer == nil:
			s.Methods["gone"]++
		default:
			s.Methods["answered"]++
		}
	})
	return answer, err
}

func (h *Hub) invoke(ctx context.Context, id identity, q methodRequest) (*methodAnswer, *hubError) {
	if !h.tier().devices {
		return nil, errTier(h.cfg.Tier, "Direct methods are")
	}
	h.mu.Lock()
	_, missing := h.enabled(id)
	h.mu.Unlock()
	if missing != nil {
		return nil, missing
	}
	if err := h.throttle(ctx, opMethod, units(len(q.Payload), 4<<10)); err != nil {
		return nil, err
	}
	h.mu.Lock()
	err := h.charge(len(q.Payload))
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	a, rid, c, err := h.startMethod(ctx, id, q)
	if c == nil {
		h.mu.Lock()
		h.charge(0) // a call to a device that is offline is billed as two messages
		h.mu.Unlock()
		return nil, err
	}
	timer := time.NewTimer(q.Respond)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		err = errNoAnswer(q.Respond)
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-c.done: // also if it came with the timer
		if c.err != nil {
			return nil, c.err
		}
		h.charge(len(c.Payload))
		return &c.methodAnswer, nil
	default:
		delete(a.calls, rid)
		return nil, err
	}
}

// startMethod sends the request as soon as the device listens. A nil call and no
// error: ctx ended.
func (h *Hub) startMethod(ctx context.Context, id identity, q methodRequest) (*attachment, string, *methodCall, *hubError) {
	deadline := time.NewTimer(q.Connect)
	defer deadline.Stop()
	for late := q.Connect == 0; ; {
		h.mu.Lock()
		r, err := h.enabled(id)
		if err != nil {
			h.mu.Unlock()
			return nil, "", nil, err
		}
		if r.takes(ListenMethods) {
			a, rid, c, err := h.sendMethod(r, q)
			if c != nil || err != nil {
				h.mu.Unlock()
				return a, rid, c, err
			}
		}
		changed := r.changed
		h.mu.Unlock()
		if late {
			return nil, "", nil, errNotOnline(q.Connect)
		}
		select {
		case <-changed:
		case <-deadline.C:
			late = true
		case <-ctx.Done():
			return nil, "", nil, nil
		}
	}
}

// sendMethod gives a request to the record's link. A nil call without an error:
// the link could not take it. The caller holds mu.
func (h *Hub) sendMethod(r *record, q methodRequest) (*attachment, string, *methodCall, *hubError) {
	a := r.link
	if n := h.cfg.MaxMethodsInFlight; n > 0 && len(a.calls) >= n {
		return nil, "", nil, errInFlight(len(a.calls))
	}
	rid := h.newRID()
	c := &methodCall{done: make(chan struct{})}
	a.calls[rid] = c // before invoke: the answer may be fast
	if !a.link.invoke(rid, q.Name, q.Payload) {
		delete(a.calls, rid)
		return nil, "", nil, nil
	}
	return a, rid, c, nil
}

// methodResult is the device's answer. One that nobody waits for, any more or at
// all, is passed over. false: the payload is no JSON, or too large; the hub cuts
// the connection then.
func (a *attachment) methodResult(rid string, status int, payload []byte) bool {
	if len(payload) > maxMethod || len(payload) > 0 && !json.Valid(payload) {
		return false
	}
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.r.lastActivity = time.Now()
	c := a.calls[rid]
	if c == nil {
		a.h.stats.AnswersLate++
		return true
	}
	delete(a.calls, rid)
	c.methodAnswer = methodAnswer{status, payload}
	close(c.done)
	return true
}
