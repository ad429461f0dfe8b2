package method

import (
	"context"
	"net"
	"net/http"
	"time"

	"websocketbridge/signaler"
)

// DialWith makes s dial by other means.
func (s *Signaler) DialWith(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	s.client.Transport.(*http.Transport).DialContext = dial
}

// RoundTripWith makes f the transport of s.
func (s *Signaler) RoundTripWith(f func(*http.Request) (*http.Response, error)) {
	s.client.Transport = roundTrip(f)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// OfflineAtMost is how much longer than one call the answer "offline" takes.
const OfflineAtMost = reconnectPause*5/4 + reconnectWait

const (
	MaxRetryAfter = maxRetryAfter
	MaxBody       = maxBody
)

// RetryAfter is retryAfter.
func RetryAfter(v string, now time.Time) time.Duration { return retryAfter(v, now) }

// ParseAnswer is parseAnswer.
func ParseAnswer(body []byte) (*signaler.Refusal, error) { return parseAnswer(body) }

// JudgeError is an error answer's words, and what it means.
func JudgeError(status int, h http.Header, body []byte, now time.Time) (words string, is error) {
	e := parseHubError(status, h, body, now)
	return e.String(), e.meaning().is
}

// Meanings are the rows of the table.
func Meanings() (out []struct {
	Code int
	Name string
	Is   error
}) {
	for _, m := range meanings {
		out = append(out, struct {
			Code int
			Name string
			Is   error
		}{m.code, m.name, m.is})
	}
	return out
}
