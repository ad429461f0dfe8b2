package method

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

// ErrNoHandler: the device is there, but nobody on it handles the method. An error that
// wraps it is also a *signaler.RefusedError.
var ErrNoHandler = errors.New("the device has no handler for the method")

// A refusal is a device's no: at most so many bytes of it are kept.
const (
	maxCode    = 64
	maxMessage = 1000
)

// codeReplayed is package deviceagent's for a signal that has been there before.
const codeReplayed = "replayed"

// errNoAnswer: 200, but not from a hub.
var errNoAnswer = errors.New("200 with a body that is no answer of a direct method; is the host name that of an IoT Hub?")

// parseAnswer reads the body of a 200: nil if the device accepted, its refusal if not,
// errNoAnswer if it is not what a hub sends.
func parseAnswer(body []byte) (*signaler.Refusal, error) {
	var in struct {
		Status  *int
		Payload json.RawMessage
	}
	if json.Unmarshal(body, &in) != nil || in.Status == nil {
		return nil, errNoAnswer
	}
	if *in.Status == 0 || *in.Status >= 200 && *in.Status <= 299 {
		return nil, nil
	}
	return refusal(*in.Status, in.Payload), nil
}

// refusal makes the best of a device's answer. Only our agent knows our form: other
// devices answer with text, with other objects, or with nothing.
func refusal(status int, payload json.RawMessage) *signaler.Refusal {
	var no signaler.Refusal
	var members map[string]json.RawMessage
	if json.Unmarshal(payload, &members) == nil {
		no.Code, no.Message = text(members["code"]), cmp.Or(text(members["message"]), text(members["error"]))
	} else {
		no.Message = text(payload)
	}
	if no.Code = printable(no.Code, maxCode); no.Code == "" {
		no.Code = statusCode(status)
	}
	if no.Message = printable(no.Message, maxMessage); no.Message == "" {
		no.Message = fmt.Sprintf("the device answered status %d and no words", status)
	}
	return &no
}

// statusCode is the code of a refusal that has none.
func statusCode(status int) string { return fmt.Sprintf("device_status_%d", status) }

// noHandler tells an answer by an SDK or by an application's catch-all, to a method
// that nobody handles, from a refusal: 404 or 501 and no code.
func noHandler(no *signaler.Refusal) bool {
	return no.Code == statusCode(404) || no.Code == statusCode(501)
}

// A refusedError is a refusal that is one more thing.
type refusedError struct {
	no   *signaler.RefusedError
	fact error
}

func (e *refusedError) Error() string   { return e.fact.Error() + ": " + e.no.Error() }
func (e *refusedError) Unwrap() []error { return []error{e.no, e.fact} }

// printable makes words from elsewhere fit for a log and a terminal: one line, valid
// UTF-8, at most n bytes.
func printable(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " ")))
}

const leftOut = "(left out: it quotes the signal)"

// secrets are the texts that must not come back in an error.
type secrets []string

func secretsOf(s *signaler.Signal, auth credential.Token) secrets {
	proof := auth.Text
	if auth.Kind == credential.SAS { // the rest of it names the hub and the policy, as the hub's own words do
		_, proof, _ = strings.Cut(proof, "sig=")
		proof, _, _ = strings.Cut(proof, "&")
	}
	out := secrets{s.RequestData, s.Sig, proof}
	for _, raw := range []string{s.AcceptURL, s.RejectURL} {
		if u, err := url.Parse(raw); err == nil { // the host is no secret, and a device names it
			out = append(out, u.RawQuery)
		}
	}
	return out
}

const (
	// window is how much of a secret in a row makes a quotation, in bytes.
	window = 12
	// tooShort is in every other sentence by chance, in bytes.
	tooShort = 4
)

// guard returns words, unless they quote a secret.
func (s secrets) guard(words string) string {
	for _, secret := range s {
		if len(secret) < tooShort {
			continue
		}
		for i := 0; i == 0 || i+window <= len(secret); i++ {
			if strings.Contains(words, secret[i:min(i+window, len(secret))]) {
				return leftOut
			}
		}
	}
	return words
}
