package auth

import (
	"errors"
	"net/http"
)

// An Authenticator says who makes a request; see the package comment.
type Authenticator interface {
	Authenticate(r *http.Request) (*Principal, error)
}

// Any asks each in turn until one finds credentials of its kind. What that one says is
// the answer: bad credentials of one kind are not made good by others beside them. With
// none of any kind the error is ErrNoCredentials, in the words of the last.
func Any(all ...Authenticator) Authenticator { return chain(all) }

type chain []Authenticator

func (c chain) Authenticate(r *http.Request) (*Principal, error) {
	none := ErrNoCredentials
	for _, a := range c {
		p, err := a.Authenticate(r)
		if !errors.Is(err, ErrNoCredentials) {
			return p, err
		}
		none = err
	}
	return nil, none
}

// Renew asks all that can say later what became of a principal; see the package comment.
// Each returns those of other methods as they are.
func (c chain) Renew(p *Principal) (*Principal, error) {
	for _, a := range c {
		r, ok := a.(interface {
			Renew(*Principal) (*Principal, error)
		})
		if !ok {
			continue
		}
		var err error
		if p, err = r.Renew(p); err != nil {
			return nil, err
		}
	}
	return p, nil
}
