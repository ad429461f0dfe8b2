package emulator

import (
	"net/url"
	"strings"
	"time"

	"websocketbridge/signaler/sas"
	"websocketbridge/test/emulator/amqp"
)

// A claim is what a token on a connection allows. Whether it is enough is judged
// when a link is attached; so links live on while their token is renewed.
type claim struct {
	ok      bool      // there is a token
	connect bool      // a service's: it may connect
	expiry  time.Time // zero: never
	alarm   *alarm
}

// needService says whether links of services may be attached.
func (ac *amqpConn) needService() *hubError {
	ac.h.mu.Lock()
	defer ac.h.mu.Unlock()
	switch c := ac.service; {
	case !c.ok:
		return errUnauthorized("Unauthorized: no token was put on this connection.")
	case !c.connect:
		return errUnauthorized("Unauthorized: the token's policy lacks service connect.")
	}
	return nil
}

// putToken takes a token, whoever's it is. SAS or "Bearer …".
func (ac *amqpConn) putToken(text string) *hubError {
	kind, _, _ := strings.Cut(text, " ")
	if strings.EqualFold(kind, "Bearer") {
		return ac.putService(text)
	}
	t, err := sas.ParseToken(text)
	if err != nil {
		return errUnauthorized("Unauthorized: the token cannot be read.")
	}
	id, isDevice := resourceIdentity(t.Resource)
	if !isDevice {
		return ac.putService(text)
	}
	expiry, bad := ac.h.checkDevice(id, text, ac.tls)
	if bad != nil {
		return bad
	}
	ac.claimDevice(id, expiry)
	return nil
}

// resourceIdentity reads whose a token is by its resource.
func resourceIdentity(resource string) (identity, bool) {
	sr, err := url.PathUnescape(resource)
	if err != nil {
		return identity{}, false
	}
	_, path, _ := strings.Cut(sr, "/")
	id, rest, ok := cutIdentity(path)
	return id, ok && rest == ""
}

func (ac *amqpConn) putService(text string) *hubError {
	expiry, err := ac.h.checkServiceToken(text, 0)
	if err != nil {
		return err
	}
	_, lacks := ac.h.checkServiceToken(text, serviceConnect)
	h := ac.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cancel(ac.service.alarm)
	ac.service = claim{ok: true, connect: lacks == nil, expiry: expiry}
	if !expiry.IsZero() && !ac.ended {
		ac.service.alarm = h.at(expiry.Add(h.cfg.TokenGrace), ac.serviceExpired)
	}
	return nil
}

// serviceExpired ends the links of services; the connection and $cbs live. The
// caller holds mu.
func (ac *amqpConn) serviceExpired() {
	ac.service = claim{}
	e := amqpError(errUnauthorized("Unauthorized: the token expired."))
	for l := range ac.links {
		if l.address.id == (identity{}) {
			l.detach(e)
		}
	}
}

func (ac *amqpConn) claimDevice(id identity, expiry time.Time) {
	h := ac.h
	h.mu.Lock()
	ac.claims[id] = &claim{ok: true, expiry: expiry}
	d := ac.devices[id]
	h.mu.Unlock()
	if d != nil {
		d.at.renew(expiry)
	}
}

// loginPlain is SASL PLAIN: {policy}@sas.root.{hub} for services, {device}@sas.{hub}
// for devices, with a SAS token as password.
func (ac *amqpConn) loginPlain(user, password string) *hubError {
	name, realm, _ := cutLast(user, "@")
	hub := ""
	policy := false
	switch lower := strings.ToLower(realm); {
	case strings.HasPrefix(lower, "sas.root."):
		hub, policy = realm[len("sas.root."):], true
	case strings.HasPrefix(lower, "sas."):
		hub = realm[len("sas."):]
	}
	first, _, _ := strings.Cut(ac.h.cfg.HostName, ".")
	if hub == "" || !strings.EqualFold(hub, first) && !ac.h.hostIs(hub) {
		return errUnauthorized("Unauthorized: the user of PLAIN is not of this hub.")
	}
	t, err := sas.ParseToken(password)
	switch {
	case err != nil:
		return errUnauthorized("Unauthorized: the password of PLAIN is not a token.")
	case policy && t.Policy != name:
		return errUnauthorized("Unauthorized: the user of PLAIN is not the token's policy.")
	case policy:
		return ac.putService(password)
	}
	id := identity{Device: name}
	id.Device, id.Module, _ = strings.Cut(name, "/")
	expiry, bad := ac.h.checkDevice(id, password, ac.tls)
	if bad != nil {
		return bad
	}
	ac.claimDevice(id, expiry)
	return nil
}

// cutLast is strings.Cut at the last sep: an ID may hold an @.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// deviceClaim says whether a device's links may be attached: by a token, or by the
// certificate of the TLS handshake.
func (ac *amqpConn) deviceClaim(id identity) (time.Time, *hubError) {
	h := ac.h
	h.mu.Lock()
	c := ac.claims[id]
	if c == nil && id.Module != "" {
		c = ac.claims[identity{Device: id.Device}] // a device's token is for what is below it, too
	}
	h.mu.Unlock()
	if c == nil {
		return h.checkDevice(id, "", ac.tls)
	}
	if !c.expiry.IsZero() && time.Now().After(c.expiry.Add(h.cfg.TokenGrace)) {
		return time.Time{}, errUnauthorized("Unauthorized: the token expired.")
	}
	return c.expiry, nil
}

// audienceIs says whether the name of a put-token is one that SDKs use for this hub:
// the host, what the token is for, amqps://host:5671/, or Entra's for all hubs.
func (h *Hub) audienceIs(name string) bool {
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	host, _, _ := strings.Cut(name, "/")
	return h.hostIs(host) || strings.EqualFold(host, "iothubs.azure.net")
}

var _ amqp.Handler = (*amqpConn)(nil)
