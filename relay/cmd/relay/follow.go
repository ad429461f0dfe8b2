package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/settings"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
	"websocketbridge/signaler/sas"
)

// A keyPair is the certificate that is in force, with its key.
type keyPair struct {
	cert atomic.Pointer[tls.Certificate]
}

// get is for a tls.Config. Who is connected stays so with the certificate from before.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.cert.Load(), nil }

// apply takes the texts of two PEM files. Those that do not belong together are refused.
func (k *keyPair) apply(texts []string) ([]any, error) {
	cert, err := tls.X509KeyPair([]byte(texts[0]), []byte(texts[1]))
	if err != nil {
		return nil, err
	}
	k.cert.Store(&cert)
	names := cert.Leaf.DNSNames
	for _, ip := range cert.Leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return []any{"names", strings.Join(names, " "), "not_after", cert.Leaf.NotAfter.UTC().Format(time.RFC3339)}, nil
}

// An authority is the certificates that nodes trust for each other, or for clients: these
// and no others, not the system's.
type authority struct {
	pool atomic.Pointer[x509.CertPool]
}

// apply takes the text of a PEM file. To change authorities, the file has both for a while.
func (a *authority) apply(texts []string) ([]any, error) {
	pool, names := x509.NewCertPool(), []string{}
	for rest := []byte(texts[0]); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(names)+1, err)
		}
		pool.AddCert(cert)
		names = append(names, cert.Subject.String())
	}
	if len(names) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	a.pool.Store(pool)
	return []any{"authorities", strings.Join(names, "; ")}, nil
}

// followCertificate makes what TLS listens with from two files.
func (p *prepared) followCertificate(certFile, keyFile string) error {
	pair := new(keyPair)
	// gorilla/websocket upgrades HTTP/1.1 only, so no other protocol is offered.
	p.tls = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: pair.get}
	return p.follow(&watched{settings: []string{"RELAY_TLS_CERT", "RELAY_TLS_KEY"}, files: []string{certFile, keyFile}, apply: pair.apply})
}

// followAPIKeys lets in whose keys the file has. Bridges of a key that is taken out stay
// open, unless RELAY_POLICY_REVOKE.
func (p *prepared) followAPIKeys(path string) (*auth.Keys, error) {
	keys := new(auth.Keys)
	return keys, p.follow(&watched{
		settings: []string{"RELAY_API_KEYS"}, files: []string{path}, read: auth.ReadFile,
		apply: func(texts []string) ([]any, error) {
			if err := keys.Replace(texts[0]); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return []any{"keys", keys.Len()}, nil
		},
	})
}

// followClientCA has TLS ask for client certificates, of these authorities only. Who has
// none is let in by other means, or not. Connections of an authority that is taken out
// stay; new ones are not made with it, hence no resumption.
func (p *prepared) followClientCA(path string) error {
	clients, base := new(authority), p.tls.Clone()
	base.ClientAuth, base.SessionTicketsDisabled = tls.VerifyClientCertIfGiven, true
	p.tls.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientCAs = clients.pool.Load()
		return c, nil
	}
	return p.follow(&watched{settings: []string{"RELAY_CLIENT_CA"}, files: []string{path}, apply: clients.apply})
}

// followTokenKeys is for a ring that was made of text.
func (p *prepared) followTokenKeys(ring *token.Ring, text string) {
	p.followSecret("RELAY_TOKEN_KEYS", text, settings.ReadSecret, func(text string) ([]any, error) {
		keys, err := token.ParseKeys(text)
		if err == nil {
			err = ring.Replace(keys...)
		}
		return []any{"keys", ring}, err
	})
}

// followSignalKey has signals signed with a key that text holds, if it is set.
func (p *prepared) followSignalKey(text string) error {
	if text == "" {
		return nil
	}
	key, err := signaler.ParseSigningKey(text)
	if err != nil {
		return err
	}
	signer := signaler.NewSigner(key)
	p.relay.Signer = signer
	p.followSecret("RELAY_SIGNAL_KEY", text, settings.ReadSecret, func(text string) ([]any, error) {
		key, err := signaler.ParseSigningKey(text)
		if err == nil {
			signer.Replace(key)
		}
		return []any{"key", signer}, err
	})
	return nil
}

// followHub is for a hub whose connection string is text. Another key, or policy, of the
// same hub signs the next tokens. Signalers are made for one hub, so another one needs
// another relay.
func (p *prepared) followHub(h *hub, text string) {
	if h.signer == nil {
		return // the identity is Entra ID's, whose package reads its files again by itself
	}
	p.followSecret("RELAY_HUB_CONNECTION_STRING", text, settings.ReadSecret, func(text string) ([]any, error) {
		c, err := serviceConnection(text)
		switch {
		case err != nil:
			return nil, err
		case !strings.EqualFold(c.HostName, h.name):
			return nil, fmt.Errorf("it names another hub than %s; restart to use it", h.name)
		case !strings.EqualFold(c.GatewayHostName, h.gateway):
			return nil, errors.New("it names another gateway than before, or none; restart to use it")
		}
		if err := h.signer.Replace(c); err != nil {
			return nil, err
		}
		if h.renew != nil {
			h.renew()
		}
		return []any{"hub", h.name, "policy", c.PolicyName}, nil
	})
}

// serviceConnection reads a connection string that a relay can use.
func serviceConnection(text string) (sas.ConnectionString, error) {
	c, err := sas.ParseConnectionString(text)
	// The policies that each hub is born with; those of one's own may be called anything.
	if p := c.PolicyName; err == nil && (p == "device" || p == "registryRead" || p == "registryReadWrite") {
		err = fmt.Errorf("the policy %s has no ServiceConnect; take that of the policy service", p)
	}
	return c, err
}
