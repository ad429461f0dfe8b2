package emulator

import (
	"crypto/sha1" // #nosec G505 -- the hub knows such thumbprints
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/url"
	"strings"
	"time"

	"websocketbridge/signaler/sas"
)

// A right is what a service policy may do.
type right int

const (
	registryRead right = 1 << iota
	registryWrite
	serviceConnect
	deviceConnect
)

// The policies that every new hub has.
var policyRights = map[string]right{
	"iothubowner":       registryRead | registryWrite | serviceConnect | deviceConnect,
	"service":           serviceConnect,
	"device":            deviceConnect,
	"registryRead":      registryRead,
	"registryReadWrite": registryRead | registryWrite,
}

var policyNames = []string{"iothubowner", "service", "device", "registryRead", "registryReadWrite"}

// ServiceConnectionString returns what a service's program is given: policies are
// iothubowner, service, device, registryRead and registryReadWrite. "": there is
// no such policy. It holds a key.
func (h *Hub) ServiceConnectionString(policy string) string {
	key := h.policies[policy]
	if key == "" {
		return ""
	}
	return "HostName=" + h.cfg.HostName + ";SharedAccessKeyName=" + policy + ";SharedAccessKey=" + key
}

// hostIs says whether name, which may have a port, is this hub's. An SDK that was
// given a host with a port puts it into everything.
func (h *Hub) hostIs(name string) bool {
	if host, port, err := net.SplitHostPort(name); err == nil && port != "" {
		name = host
	}
	return strings.EqualFold(name, h.cfg.HostName)
}

// covers is sas.Token.Covers for the hub's name with any port.
func (h *Hub) covers(t sas.Token, id identity) bool {
	sr, err := url.PathUnescape(t.Resource)
	if err != nil {
		return false
	}
	if again, err := url.PathUnescape(sr); err == nil && h.cfg.EscapedTwice && !strings.Contains(sr, "/") {
		t.Resource, sr = sr, again
	}
	host, _, _ := strings.Cut(sr, "/")
	return h.hostIs(host) && t.Covers(h.resource(host, id))
}

const skew = 5 * time.Minute // an SDK's clock may be off by so much

// checkServiceToken checks what a service shows: "SharedAccessSignature …" of a
// policy with the right, or "Bearer …". expiry is zero for a token that is good
// for ever.
func (h *Hub) checkServiceToken(text string, need right) (expiry time.Time, err *hubError) {
	kind, rest, _ := strings.Cut(text, " ")
	if strings.EqualFold(kind, "Bearer") {
		return h.checkBearer(rest, need)
	}
	t, bad := sas.ParseToken(text)
	if bad != nil {
		return time.Time{}, errUnauthorized("Unauthorized: the token cannot be read.")
	}
	return h.checkPolicy(t, identity{}, need)
}

func (h *Hub) checkPolicy(t sas.Token, id identity, need right) (time.Time, *hubError) {
	key := h.policies[t.Policy]
	switch {
	case key == "" || !t.Verify(key):
		return time.Time{}, errUnauthorized("Unauthorized: the token's signature or policy is wrong.")
	case !h.covers(t, id):
		return time.Time{}, errUnauthorized("Unauthorized: the token is for another resource.")
	case !t.Expiry.After(time.Now()):
		return time.Time{}, errUnauthorized("Unauthorized: the token expired.")
	case policyRights[t.Policy]&need != need:
		return time.Time{}, errUnauthorized("Unauthorized: policy %s lacks a right.", t.Policy)
	}
	return t.Expiry, nil
}

// checkBearer is for Entra ID, which is for services only.
func (h *Hub) checkBearer(jwt string, need right) (expiry time.Time, err *hubError) {
	ok := h.bearers[jwt]
	if !ok && h.cfg.Bearer != nil {
		expiry, ok = h.cfg.Bearer(jwt)
	}
	switch {
	case !ok || need&deviceConnect != 0:
		return time.Time{}, errUnauthorized("Principal is not authorized due to no assigned permissions")
	case !expiry.IsZero() && !expiry.After(time.Now()):
		return time.Time{}, errUnauthorized("Unauthorized: the token expired.")
	}
	return expiry, nil
}

// checkDevice checks who a device or a module says that it is: by a token signed
// with its key or a policy's, or, if password is empty, by the certificate of the
// TLS handshake. expiry is the token's or the certificate's. Close is set in the
// error where the hub does not even refuse.
func (h *Hub) checkDevice(id identity, password string, state *tls.ConnectionState) (expiry time.Time, err *hubError) {
	expiry, err = h.checkIdentity(id, password, state)
	if err != nil {
		h.count(func(s *Stats) { s.ConnectsRefused++ })
	}
	return expiry, err
}

func (h *Hub) checkIdentity(id identity, password string, state *tls.ConnectionState) (time.Time, *hubError) {
	h.mu.Lock()
	r, err := h.enabled(id)
	var c credentials
	if r != nil {
		c = r.credentials
	}
	h.mu.Unlock()
	if err != nil { // a device learns no more than that it is not welcome
		return time.Time{}, errUnauthorized("Unauthorized: %s or disabled.", err.Name)
	}
	if password == "" {
		return h.checkCertificate(id, c, state)
	}
	t, bad := sas.ParseToken(password)
	if bad != nil {
		return time.Time{}, errUnauthorized("Unauthorized: the password is not a token.")
	}
	if t.Policy != "" {
		return h.checkPolicy(t, id, deviceConnect)
	}
	switch {
	case c.auth != authSAS:
		return time.Time{}, errUnauthorized("Unauthorized: %v signs in with a certificate.", id)
	case !t.Verify(c.primary, c.secondary):
		return time.Time{}, errUnauthorized("Unauthorized: the token's signature is wrong.")
	case !h.covers(t, id):
		return time.Time{}, errUnauthorized("Unauthorized: the token is for another resource.")
	case !t.Expiry.After(time.Now()):
		return time.Time{}, errUnauthorized("Unauthorized: the token expired.")
	}
	return t.Expiry, nil
}

func (h *Hub) checkCertificate(id identity, c credentials, state *tls.ConnectionState) (time.Time, *hubError) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return time.Time{}, errUnauthorized("Unauthorized: there is neither a token nor a certificate.")
	}
	cert, now := state.PeerCertificates[0], time.Now()
	if now.Before(cert.NotBefore.Add(-skew)) || now.After(cert.NotAfter) {
		err := errUnauthorized("Unauthorized: the certificate expired, or is not good yet.")
		err.Close = true // as devices see it: azure-iot-sdk-node #776
		return time.Time{}, err
	}
	switch c.auth {
	case authSelf:
		s1, s256 := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw) // #nosec G401 -- a thumbprint may be SHA-1
		for _, t := range c.thumbprints {
			if t != "" && (strings.EqualFold(t, hex.EncodeToString(s1[:])) || strings.EqualFold(t, hex.EncodeToString(s256[:]))) {
				return cert.NotAfter, nil
			}
		}
	case authCA:
		if h.cfg.DeviceCAs == nil || id.Module != "" || cert.Subject.CommonName != id.Device {
			break
		}
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := cert.Verify(x509.VerifyOptions{Roots: h.cfg.DeviceCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil {
			return cert.NotAfter, nil
		}
	}
	return time.Time{}, errUnauthorized("Unauthorized: the certificate is not the one of %v.", id)
}
