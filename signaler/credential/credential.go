// Package credential is how a service proves to a hub who it is: with a shared
// access signature, or with a token of Entra ID (package entra).
//
// REST and AMQP take the same text, so both signalers share one Source.
package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"websocketbridge/signaler/sas"
)

// Kind is the kind of a Token. REST does not care; AMQP's CBS wants to be told.
type Kind int

// The kinds.
const (
	SAS    Kind = iota // "SharedAccessSignature sr=…"
	Bearer             // "Bearer " and a JWT
)

func (k Kind) String() string {
	if k == Bearer {
		return "bearer"
	}
	return "sas"
}

// A Token is what the hub is shown. It is a secret.
type Token struct {
	Text    string // the whole value of an Authorization header
	Kind    Kind
	Expires time.Time
}

// A Source gives tokens. It is safe for concurrent use, and may give the same
// token again as long as that lives for a while. An error says what to try; it
// quotes no secret.
type Source interface {
	Token(ctx context.Context) (Token, error)
}

// DefaultLife is how long a signed token lives: that of Microsoft's SDKs.
const DefaultLife = time.Hour

// FromConnectionString signs tokens with a service policy's key. life is how long
// one lives; 0: DefaultLife. A token is given again until 2/3 of its life are over.
func FromConnectionString(c sas.ConnectionString, life time.Duration) (*Signer, error) {
	switch {
	case life < 0:
		return nil, errors.New("the token's life is negative")
	case life == 0:
		life = DefaultLife
	}
	s := &Signer{life: life}
	if err := s.Replace(c); err != nil {
		return nil, err
	}
	return s, nil
}

// A Signer is a Source that has a service policy's key.
type Signer struct {
	life time.Duration

	mu    sync.Mutex // guards what follows
	c     sas.ConnectionString
	last  Token
	fresh time.Time // until when last is given again
}

// Replace changes the key, and the policy: the next token is signed with the new one.
// What was given before lives on for as long as the hub knows the old key. After an
// error everything is as it was.
func (s *Signer) Replace(c sas.ConnectionString) error {
	switch {
	case c.DeviceID != "":
		return errors.New("the connection string is a device's; a service needs one with a SharedAccessKeyName, such as that of the policy service")
	case c.PolicyName == "" || c.Key == "":
		return errors.New("the connection string has no SharedAccessKeyName or no SharedAccessKey")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == s.c {
		return nil
	}
	return s.sign(c)
}

// Token gives the last token again until 2/3 of its life are over.
func (s *Signer) Token(context.Context) (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now().Before(s.fresh) {
		if err := s.sign(s.c); err != nil {
			return Token{}, err
		}
	}
	return s.last, nil
}

// sign makes the next token, with the key of c. The caller holds mu.
func (s *Signer) sign(c sas.ConnectionString) error {
	now := now()
	expires := now.Add(s.life)
	text, err := sas.Sign(c.Resource(), c.PolicyName, c.Key, expires)
	if err != nil {
		return err
	}
	s.c, s.last, s.fresh = c, Token{Text: text, Kind: SAS, Expires: expires.Truncate(time.Second)}, now.Add(s.life*2/3)
	return nil
}

// now is by the wall clock, as the hub's is: the other one stops while a machine sleeps.
func now() time.Time { return time.Now().Round(0) }

// String names the token without its text.
func (t Token) String() string {
	return fmt.Sprintf("%v token until %s", t.Kind, t.Expires.UTC().Format(time.RFC3339))
}

// Format keeps every verb of package fmt from printing the text.
func (t Token) Format(f fmt.State, verb rune) {
	if verb == 'v' || verb == 's' {
		fmt.Fprint(f, t.String())
		return
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), t.String())
}

// MarshalText keeps JSON logs from printing the text.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue keeps slog from printing the text.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }
