package method

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

const (
	methodName = "Bridge"
	apiVersion = "2021-04-12"
	// maxBody is how much of an answer is read: the hub's 128 KB of payload, with
	// JSON round it.
	maxBody = 256 << 10
)

// errHub is the cause of an attempt's own deadline.
var errHub = errors.New("the hub took longer than it was asked to")

// A call is one signal on its way.
type call struct {
	*Signaler
	sig     *signaler.Signal
	payload []byte
	connect time.Duration // connectTimeoutInSeconds
	token   credential.Token
}

// request is the body; its form is the hub's.
type request struct {
	MethodName string          `json:"methodName"`
	Response   int             `json:"responseTimeoutInSeconds"`
	Connect    int             `json:"connectTimeoutInSeconds"`
	Payload    json.RawMessage `json:"payload"`
}

// do makes the call once.
func (c *call) do(ctx context.Context) error {
	response := min(max(timeLeft(ctx), minResponse), maxResponse)
	response = (response + time.Second - 1).Truncate(time.Second)
	actx, cancel := context.WithTimeoutCause(ctx, c.connect+response+overhead, errHub)
	defer cancel()
	var seen sight
	req, err := c.request(httptrace.WithClientTrace(actx, seen.trace()), response)
	if err != nil {
		return err
	}
	resp, body, err := c.roundTrip(req)
	if err == nil {
		err = c.judge(resp, body)
		if err == nil || actx.Err() == nil {
			return err
		} // net/http may return what a server said only because it was hung up on
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case actx.Err() != nil:
		return &failure{fmt.Errorf("%w: %w", errHub, signaler.ErrTimedOut), never}
	}
	f := &failure{fmt.Errorf("%s: %w", secretsOf(c.sig, c.token).guard(netError(err)), signaler.ErrUnavailable), never}
	if permanent := (*tls.CertificateVerificationError)(nil); !errors.As(err, &permanent) && seen.byNobody() {
		f.again = unseen
		c.client.CloseIdleConnections() // what ended one may have ended others
	}
	return f
}

func (c *call) request(ctx context.Context, response time.Duration) (*http.Request, error) {
	body, err := marshal(request{methodName, int(response / time.Second), int(c.connect / time.Second), c.payload})
	if err != nil {
		return nil, err
	}
	u := c.url()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = c.cfg.HostName
	req.Header.Set("Authorization", c.token.Text)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "websocketbridge")
	if id := c.sig.BridgeID; id != "" && printable(id, maxID) == id { // to find the call in the hub's own logs
		req.Header.Set("Request-Id", id)
	}
	return req, nil
}

// marshal leaves <, > and & of URLs as they are: what the hub meters is bytes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

func (c *call) url() *url.URL {
	path, raw := "/twins/"+c.sig.DeviceID, "/twins/"+escape(c.sig.DeviceID)
	if m := c.cfg.Module; m != "" {
		path, raw = path+"/modules/"+m, raw+"/modules/"+escape(m)
	}
	u := &url.URL{Scheme: "https", Host: c.cfg.HostName, Path: path + "/methods", RawPath: raw + "/methods", RawQuery: "api-version=" + apiVersion}
	if c.cfg.Addr != "" {
		u.Host = c.cfg.Addr
	}
	return u
}

// escape leaves nothing that means something in a path to anybody, as Microsoft's
// SDKs do; url.PathEscape leaves + and =, among others.
func escape(id string) string { return strings.ReplaceAll(url.QueryEscape(id), "+", "%20") }

// roundTrip returns an answer, with as much of its body as counts.
func (c *call) roundTrip(req *http.Request) (*http.Response, []byte, error) {
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	return resp, body, nil
}

// judge says what an answer means.
func (c *call) judge(resp *http.Response, body []byte) error {
	secrets := secretsOf(c.sig, c.token)
	if resp.StatusCode == http.StatusOK {
		no, err := parseAnswer(body)
		switch {
		case err != nil:
			return &failure{fmt.Errorf("%w: %w", err, signaler.ErrUnavailable), never}
		case no == nil:
			return nil
		}
		no.Code, no.Message = secrets.guard(no.Code), secrets.guard(no.Message)
		refused := &signaler.RefusedError{Refusal: *no}
		if noHandler(no) {
			return &refusedError{refused, ErrNoHandler}
		}
		return refused
	}
	now := time.Now()
	e := parseHubError(resp.StatusCode, resp.Header, body, now)
	for _, words := range []*string{&e.message, &e.name, &e.header, &e.tracking} {
		*words = secrets.guard(*words)
	}
	m := e.meaning()
	words := e.String()
	if hint := e.hint(m); hint != "" {
		words += "; " + hint
	}
	if m.is == signaler.ErrUnauthorized {
		words += clockHint(resp.Header.Get("Date"), now)
	}
	is := m.is
	switch {
	case m.code == 403002: // whoever asks until midnight gets this answer
		e.retryAfter = untilMidnight(now)
		c.gate.shut(e.retryAfter, "the day's messages are used up")
	case is == signaler.ErrThrottled && e.retryAfter > 0:
		c.gate.shut(e.retryAfter, "the hub throttles this relay")
	case m.code == 404010:
		return &failure{&moduleError{words}, never}
	}
	if is == signaler.ErrThrottled && e.retryAfter > 0 {
		is = &signaler.ThrottledError{RetryAfter: e.retryAfter}
	}
	return &failure{fmt.Errorf("%s: %w", words, is), m.again}
}

// A moduleError is ErrModuleNotFound and signaler.ErrDeviceNotFound.
type moduleError struct{ words string }

func (e *moduleError) Error() string   { return e.words + ": " + ErrModuleNotFound.Error() }
func (e *moduleError) Unwrap() []error { return []error{ErrModuleNotFound, signaler.ErrDeviceNotFound} }

// untilMidnight is until the daily quota is new, in UTC, but no more than maxRetryAfter.
func untilMidnight(now time.Time) time.Duration {
	return min(now.UTC().Truncate(24*time.Hour).Add(24*time.Hour).Sub(now), maxRetryAfter)
}

// maxSkew is how wrong a clock may be before the hub refuses its tokens.
const maxSkew = 5 * time.Minute

// clockHint says so if this machine's clock may be why a token was refused.
func clockHint(date string, now time.Time) string {
	there, err := http.ParseTime(date)
	if skew := now.Sub(there); err == nil && skew.Abs() > maxSkew {
		return "; this machine's clock and the hub's are " + skew.Abs().Round(time.Minute).String() + " apart"
	}
	return ""
}

// netError is what went wrong on the way, without the URL.
func netError(err error) string {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	return printable(err.Error(), maxHubMessage)
}

// A sight is how far a call came. Its fields are written by net/http's goroutines.
type sight struct {
	connected, kept, answered atomic.Bool
}

func (s *sight) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			s.connected.Store(true)
			s.kept.Store(i.Reused)
		},
		GotFirstResponseByte: func() { s.answered.Store(true) },
	}
}

// byNobody: there was no connection, or it was one from an earlier call and ended
// without a byte, as those do that the hub had closed already.
func (s *sight) byNobody() bool {
	return !s.connected.Load() || s.kept.Load() && !s.answered.Load()
}
