package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// authority is a private CA that lives as long as the hub. Its key is nowhere
// else, and goes with the process.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	pool *x509.CertPool
}

// certificateLife is that of the CA and of the server's certificate.
const certificateLife = 90 * 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		// A name of its own each time: clients that keep an older one would try it.
		Subject:   pkix.Name{CommonName: fmt.Sprintf("IoT Hub emulator CA %x", randomBytes(4))},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	a.pool.AddCert(cert)
	return a, nil
}

func serial() *big.Int { return new(big.Int).SetBytes(randomBytes(16)) }

// serverCertificate is for localhost, the loopback addresses, and names, which may
// be addresses.
func (a *authority) serverCertificate(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "IoT Hub emulator"}, // a host name may be too long for it
		NotBefore: now.Add(-time.Hour), NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range append([]string{"localhost", "127.0.0.1", "::1"}, names...) {
		if ip := net.ParseIP(name); ip == nil {
			if !slices.Contains(template.DNSNames, name) {
				template.DNSNames = append(template.DNSNames, name)
			}
		} else if !ip.IsUnspecified() && !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// RootCAs is what a client has to trust: the private CA that the hub made.
func (h *Hub) RootCAs() *x509.CertPool { return h.ca.pool.Clone() }

// CAPEM is RootCAs as a PEM file: for NODE_EXTRA_CA_CERTS and SSL_CERT_FILE.
func (h *Hub) CAPEM() []byte { return slices.Clone(h.ca.pem) }
