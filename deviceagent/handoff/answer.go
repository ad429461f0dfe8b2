package handoff

import (
	"bytes"
	"encoding/json"
	"errors"

	"websocketbridge/signaler"
)

// maxAnswer bounds what Send reads. A refusal names a target, not more.
const maxAnswer = 16 << 10

// Refusals of the source's own.
var (
	stopping = &signaler.Refusal{Code: "stopping", Message: "the agent stops"}
	busy     = &signaler.Refusal{Code: "busy", Message: "too many connections hand over signals; close those that are not needed"}
)

func badSignal(text string) *signaler.Refusal {
	return &signaler.Refusal{Code: "bad_signal", Message: "signal: " + text}
}

// Answer is the line that says what became of a signal; nil accepts.
func Answer(no *signaler.Refusal) []byte {
	if no == nil {
		return []byte(`{"accepted":true}` + "\n")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(no) // two strings and a buffer do not fail
	return b.Bytes()
}

// parseAnswer reads what Answer has written.
func parseAnswer(b []byte) (*signaler.Refusal, error) {
	var a struct {
		Accepted bool `json:"accepted"`
		signaler.Refusal
	}
	if err := json.Unmarshal(b, &a); err != nil || a.Accepted == (a.Code != "") {
		return nil, errors.New("answer is not an agent's") // it may quote anything
	}
	if a.Accepted {
		return nil, nil
	}
	return &a.Refusal, nil
}
