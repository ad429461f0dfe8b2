package emulator

import (
	"bytes"
	"encoding/json"
)

func (h *Hub) restMethod(q *request) (int, any, *hubError) {
	req, err := parseMethod(q.body)
	if err != nil {
		return 0, nil, err
	}
	a, err := h.invokeMethod(q.Context(), q.id, req)
	if a == nil {
		return 0, nil, err
	}
	payload := json.RawMessage(bytes.TrimSpace(a.Payload))
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	return 200, struct {
		Status  int             `json:"status"`
		Payload json.RawMessage `json:"payload"`
	}{a.Status, payload}, nil
}

// twinOf finds an identity for a request about its twin. The caller holds mu.
func (h *Hub) twinOf(q *request) (*record, *hubError) {
	if !h.tier().devices {
		return nil, errTier(h.cfg.Tier, "Twins are")
	}
	return h.find(q.id)
}

func (h *Hub) restGetTwin(q *request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.twinOf(q)
	if err != nil {
		return 0, nil, err
	}
	q.header.Set("ETag", `"`+r.twin.etag+`"`)
	return 200, h.twinJSON(r), nil
}

func (h *Hub) restPatchTwin(q *request) (int, any, *hubError) { return h.changeTwin(q, false) }

func (h *Hub) restPutTwin(q *request) (int, any, *hubError) { return h.changeTwin(q, true) }

func (h *Hub) changeTwin(q *request, replace bool) (int, any, *hubError) {
	var p twinPatch
	if err := decodeJSON(q.body, &p); err != nil {
		return 0, nil, errArgument("The body is not a twin's JSON.")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.twinOf(q)
	if err != nil {
		return 0, nil, err
	}
	if ok, set := matches(q, r.twin.etag); set && !ok {
		return 0, nil, errPrecondition()
	}
	if err := h.updateTwin(r, p, replace); err != nil {
		return 0, nil, err
	}
	return 200, h.twinJSON(r), nil
}
