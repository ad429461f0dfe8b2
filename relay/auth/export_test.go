package auth

import (
	"net/http"
	"time"
)

// At is Authenticate at a time that the test chose.
func (k *Keys) At(r *http.Request, now time.Time) (*Principal, error) { return k.authenticate(r, now) }

// RenewAt is Renew at a time that the test chose.
func (k *Keys) RenewAt(p *Principal, now time.Time) (*Principal, error) { return k.renew(p, now) }

// ParseGlobs reads a list of globs; with dash, as one of targets.
var ParseGlobs = parseGlobs

// CertsAt is Certs.Authenticate at a time that the test chose.
var CertsAt = certs
