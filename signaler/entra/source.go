package entra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"websocketbridge/signaler/credential"
)

const (
	// retryAhead is between attempts to renew a token that is still good.
	retryAhead = 30 * time.Second
	// renewTime bounds such an attempt: its caller has a good token already.
	renewTime = 5 * time.Second
	// askTime bounds an attempt whose caller has no deadline.
	askTime = 30 * time.Second
	// margin is what has to be left of a token's life for it to be given.
	margin = 10 * time.Second
	// forgetAge is how old a token has to be to be forgotten: a role that is missing
	// does not become better by asking for tokens all the time.
	forgetAge = time.Minute
)

// source is a credential.Source. It is also told of refused tokens, see Forget.
type source struct {
	name, scope string
	make        func() (azcore.TokenCredential, error)

	mu    sync.Mutex // guards what follows
	last  credential.Token
	got   time.Time // when last came
	fresh time.Time // until when it is given without a question
	ask   *asking   // nil: nobody asks
}

// asking is a request for a token that others wait for.
type asking struct {
	done  chan struct{} // closed once the rest is set
	err   error
	ended bool // because its caller's context did: the others have to ask again
}

func newSource(name, scope string, makeIt func() (azcore.TokenCredential, error)) *source {
	return &source{name: name, scope: scope, make: makeIt}
}

// Token implements credential.Source.
func (s *source) Token(ctx context.Context) (credential.Token, error) {
	for {
		s.mu.Lock()
		now := wall()
		good := now.Before(s.last.Expires.Add(-margin))
		if good && (now.Before(s.fresh) || s.ask != nil) {
			defer s.mu.Unlock()
			return s.last, nil
		}
		if a := s.ask; a != nil {
			s.mu.Unlock()
			select {
			case <-a.done:
				if a.err != nil && !a.ended {
					return credential.Token{}, a.err
				}
				continue
			case <-ctx.Done():
				return credential.Token{}, context.Cause(ctx)
			}
		}
		a := &asking{done: make(chan struct{})}
		s.ask = a
		old := s.last
		s.mu.Unlock()
		t, err := s.get(ctx, good)
		s.finish(a, t, err, ctx.Err() != nil)
		switch {
		case err == nil:
			return t, nil
		case good:
			return old, nil
		case ctx.Err() != nil:
			return credential.Token{}, context.Cause(ctx)
		}
		return credential.Token{}, err
	}
}

// finish keeps what an attempt brought and tells those who wait.
func (s *source) finish(a *asking, t credential.Token, err error, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := wall()
	if err == nil {
		s.last, s.got = t, now
		s.fresh = now.Add(max(t.Expires.Sub(now)*2/3, margin))
	} else {
		s.fresh = now.Add(retryAhead) // counts only while last is good
	}
	a.err, a.ended = err, ended
	s.ask = nil
	close(a.done)
}

// wall is the time without Go's monotonic clock, which stands still while a machine
// sleeps: a token expires all the same.
func wall() time.Time { return time.Now().Round(0) }

// get asks for a token.
func (s *source) get(ctx context.Context, ahead bool) (credential.Token, error) {
	limit := askTime
	if ahead {
		limit = renewTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tc, err := s.make()
	if err != nil {
		return credential.Token{}, &Error{kind: s.name, words: oneLine(err.Error())}
	}
	t, err := tc.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{s.scope}})
	if err != nil {
		return credential.Token{}, explain(s.name, err, ctx.Err() != nil)
	}
	if t.Token == "" || !wall().Before(t.ExpiresOn.Add(-margin)) {
		return credential.Token{}, &Error{kind: s.name, words: "got a token that has expired; is this machine's clock right?"}
	}
	return credential.Token{Text: "Bearer " + t.Token, Kind: credential.Bearer, Expires: t.ExpiresOn.Round(0)}, nil
}

// Forget makes the next Token ask for another one, if t is the last one and not new.
// It is for whoever was told by the hub that t is not good.
func (s *source) Forget(t credential.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.Text == s.last.Text && wall().Sub(s.got) >= forgetAge {
		s.last, s.fresh = credential.Token{}, time.Time{}
	}
}

// Error is why there is no token. It quotes no secret.
type Error struct {
	kind        string
	words       string
	unavailable bool
}

func (e *Error) Error() string {
	hint := hints[Kind(e.kind)]
	if e.unavailable {
		hint = ""
	}
	if hint != "" {
		hint = "; " + hint
	}
	return fmt.Sprintf("entra: %s: %s%s", e.kind, e.words, hint)
}

// Unavailable reports that nobody said no: whoever gives the tokens could not be
// reached or failed.
func (e *Error) Unavailable() bool { return e.unavailable }

// hints are what to try when a token is refused.
var hints = map[Kind]string{
	ManagedIdentity:   "does this machine have the identity?",
	WorkloadIdentity:  "does the app registration trust the issuer and the subject of the token in the file?",
	ClientSecret:      "is it the secret's value and not its ID, and has it not expired?",
	ClientCertificate: "has the app registration this certificate?",
	AzureCLI:          "run az login",
}

// explain makes one line of azidentity's errors, which quote whole HTTP answers.
func explain(kind string, err error, late bool) *Error {
	e := &Error{kind: kind, words: oneLine(err.Error()), unavailable: late}
	if late {
		e.words = "no answer in time"
	}
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) {
		return e
	}
	if failed.RawResponse == nil {
		e.unavailable = true // the network; azidentity keeps its text only
		return e
	}
	status := failed.RawResponse.StatusCode
	e.unavailable = status >= 500 || status == http.StatusTooManyRequests
	e.words = fmt.Sprintf("answered %d", status)
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if b, err := runtime.Payload(failed.RawResponse); err == nil && json.Unmarshal(b, &body) == nil && body.Error != "" {
		e.words += " " + oneLine(body.Error)
		if body.Description != "" {
			e.words += ": " + oneLine(body.Description)
		}
	}
	return e
}

// maxWords bounds what is quoted, in bytes.
const maxWords = 300

// oneLine is the first line of s as far as it can be shown.
func oneLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "")
	}
	return strings.TrimSpace(s)
}
