package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// SelfTLS is TLS for both ends of the node port with a certificate made here and now.
// Nobody checks it, nor need they: the proof that follows is bound to the connection,
// so that whoever is in the middle of it fails (see doc.go).
func SelfTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "websocketbridge node"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(100, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13, // the exporter is safe to bind to without further conditions
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true, // #nosec G402 -- the proof authenticates, see above
		// Nobody resumes a session, so that a ticket would be bytes for nothing.
		SessionTicketsDisabled: true,
	}, nil
}

// An Identity is a node's certificate and the authorities of its peers'. It is asked at
// each handshake, so that both can be renewed.
type Identity func() (tls.Certificate, *x509.CertPool)

// MutualTLS is TLS for both ends of the node port with certificates of your own
// authority. The names in them do not count: nodes are known by their addresses, which
// change, and each has to prove itself besides.
func MutualTLS(id Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, _ := id()
			return &cert, nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, _ := id()
			return &cert, nil
		},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // #nosec G402 -- VerifyConnection does it, without the name
		VerifyConnection: func(s tls.ConnectionState) error {
			_, roots := id()
			if len(s.PeerCertificates) == 0 {
				return errors.New("the peer has no certificate")
			}
			if roots == nil { // which package x509 takes for the system's
				return errors.New("there is no authority to check the peer's certificate with")
			}
			intermediates := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				intermediates.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			return err
		},
		// A resumed session would outlive a certificate.
		SessionTicketsDisabled: true,
	}
}
