package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	keysFresh  = time.Hour        // until keys are asked for again: one that the issuer took back is good for no longer
	keysMost   = 24 * time.Hour   // until keys that cannot be asked for again are not trusted any more
	fetchEvery = 10 * time.Second // at most: strangers can make us ask, by naming keys that there are not
	fetchAgain = 5 * time.Second  // after a failure
	fetchMost  = 5 * time.Second  // for both answers; requesters wait for it
	maxAnswer  = 1 << 20          // bytes
	maxKeysSet = 100              // Entra ID has about 10
	minRSA     = 2048             // bits (RFC 7518 section 3.3)
)

// A keySource is an issuer's keys, as far as they are known. Nothing is fetched but for
// a request that needs it, and by its goroutine; others wait for that one.
type keySource struct {
	issuer string
	client *http.Client

	mu   sync.Mutex // guards all below
	keys []jose.JSONWebKey
	got  time.Time     // when keys came; zero: never
	next time.Time     // the issuer is not asked before
	err  error         // why the last try failed; nil: it did not
	busy chan struct{} // closed when the try under way is over; nil: there is none
}

// find returns the keys called id: one, in practice.
func (k *keySource) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	if id == "" {
		return nil, bad("it does not say which key has signed it (kid)")
	}
	for {
		k.mu.Lock()
		now := time.Now()
		var found []jose.JSONWebKey
		if age := now.Sub(k.got); !k.got.IsZero() && age < keysMost {
			for _, key := range k.keys {
				if key.KeyID == id {
					found = append(found, key)
				}
			}
			if len(found) > 0 && (age < keysFresh || k.busy != nil || now.Before(k.next)) {
				k.mu.Unlock()
				return found, nil
			}
		}
		err, busy, wait := k.err, k.busy, now.Before(k.next)
		if busy == nil && !wait {
			k.busy = make(chan struct{})
		}
		k.mu.Unlock()
		switch {
		case busy != nil:
			select {
			case <-busy:
			case <-ctx.Done():
				return nil, fmt.Errorf("%w: %w", ErrUnchecked, context.Cause(ctx))
			}
		case !wait:
			k.update(ctx)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrUnchecked, err)
		default:
			return nil, bad("it is signed with a key that the issuer does not have")
		}
	}
}

// update asks the issuer, also for others who wait: it goes on when the one who began it
// leaves.
func (k *keySource) update(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), fetchMost, fmt.Errorf("no answer within %v", fetchMost))
	defer cancel()
	keys, err := k.fetch(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if k.err, k.next = err, now.Add(fetchAgain); err == nil {
		k.keys, k.got, k.next = keys, now, now.Add(fetchEvery)
	} else {
		k.err = fmt.Errorf("keys of %s: %w", k.issuer, err)
	}
	close(k.busy)
	k.busy = nil
}

func (k *keySource) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, k.client), k.issuer)
	if err != nil {
		return nil, err
	}
	var meta struct {
		Keys string `json:"jwks_uri"`
	}
	if err := p.Claims(&meta); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, meta.Keys, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", meta.Keys, resp.Status)
	}
	return parseJWKS(body)
}

// parseJWKS keeps the keys that can be used here. A provider may have others as well.
func parseJWKS(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("its key set is no JSON")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil || key.KeyID == "" || key.Use != "" && key.Use != "sig" {
			continue
		}
		switch pub := key.Key.(type) {
		case *rsa.PublicKey:
			if pub.N.BitLen() < minRSA {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default: // symmetric, or private
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > maxKeysSet {
		return nil, fmt.Errorf("its key set has %d keys that can be used", len(keys))
	}
	return keys, nil
}

// A keySet is the keys that one token may be signed with.
type keySet struct {
	keys []jose.JSONWebKey
	algs []jose.SignatureAlgorithm
}

// VerifySignature implements oidc.KeySet.
func (s keySet) VerifySignature(_ context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, s.algs)
	if err != nil {
		return nil, err
	}
	for _, key := range s.keys {
		if key.Algorithm != "" && key.Algorithm != jws.Signatures[0].Protected.Algorithm {
			continue
		}
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no key fits")
}

// boundedClient takes only so much of an answer, and follows to no address that could be
// changed on the way.
func boundedClient(c *http.Client) *http.Client {
	bounded := http.Client{}
	if c != nil {
		bounded = *c
	}
	if bounded.Transport == nil {
		bounded.Transport = http.DefaultTransport
	}
	bounded.Transport = boundedTransport{bounded.Transport}
	bounded.CheckRedirect = func(_ *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("too many redirects")
		}
		return nil
	}
	return &bounded
}

type boundedTransport struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !secure(r.URL) {
		return nil, fmt.Errorf("%s://%s is not https", r.URL.Scheme, r.URL.Host)
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}
