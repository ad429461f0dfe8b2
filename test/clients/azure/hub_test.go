//go:build clients

package azure

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/emulator"
)

// Where the emulator is: an address of our own on the loopback network, and a
// name that only our processes resolve.
const (
	hubAddress = "127.0.0.77"
	hubName    = "hub.azure.test"
	bearer     = "a-token-of-entra-id"
)

var policies = []string{"iothubowner", "service", "device", "registryRead", "registryReadWrite"}

// A hub is the emulator in this process, on the ports that the SDKs dial.
type hub struct {
	*emulator.Hub
	caFile string
}

// newHub starts one for the test.
func newHub(t *testing.T, cfg emulator.Config) *hub {
	t.Helper()
	cfg.HostName = hubName
	cfg.MQTTAddr, cfg.AMQPAddr, cfg.HTTPSAddr = hubAddress+":8883", hubAddress+":5671", hubAddress+":443"
	cfg.AdminAddr = hubAddress + ":0"
	cfg.BearerTokens = []string{bearer}
	var e *emulator.Hub
	until(t, "its ports are free", func() (err error) {
		e, err = emulator.New(cfg)
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(explain(err))
		}
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the emulator: %v", err)
		}
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, e.CAPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	return &hub{e, ca}
}

// waitForPorts is for the emulator's command, which does not.
func waitForPorts(t *testing.T) {
	t.Helper()
	for _, port := range []string{"8883", "5671", "443"} {
		until(t, "port "+port+" is free", func() error {
			ln, err := net.Listen("tcp", net.JoinHostPort(hubAddress, port))
			if err == nil {
				ln.Close()
			} else if !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatal(explain(err))
			}
			return err
		})
	}
}

// explain says what to do where the ports are not to be had.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w\nThe SDKs dial port 443, so the emulator has to listen there. Run this as root, or once: sysctl net.ipv4.ip_unprivileged_port_start=443", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w\n%s is no address of this machine; Linux has all of 127.0.0.0/8, elsewhere it takes an alias: ifconfig lo0 alias %[2]s", err, hubAddress)
	}
	return err
}

// world is what node/lib.mjs knows of the hub.
type world struct {
	HostName  string            `json:"hostName"`
	Policies  map[string]string `json:"policies"`
	Admin     string            `json:"admin"`
	Bearer    string            `json:"bearer"` // a token of Entra ID that the hub takes
	X509      keyPair           `json:"x509"`
	OtherX509 keyPair           `json:"otherX509"`
	Given     map[string]string `json:"given,omitempty"` // connection strings of devices that are there already
}

func newWorld(t *testing.T, admin string) world {
	return world{
		HostName: hubName, Policies: map[string]string{}, Admin: "http://" + admin, Bearer: bearer,
		X509: newKeyPair(t), OtherX509: newKeyPair(t),
	}
}

func (h *hub) world(t *testing.T) world {
	w := newWorld(t, h.AdminAddr())
	for _, p := range policies {
		w.Policies[p] = h.ServiceConnectionString(p)
	}
	return w
}

// device registers one, with modules, and returns connection strings: its own
// and its modules'.
func (h *hub) device(t *testing.T, id string, modules ...string) []string {
	t.Helper()
	d := emulator.Device{ID: id}
	for _, m := range modules {
		d.Modules = append(d.Modules, emulator.Module{ID: m})
	}
	if _, err := h.PutDevice(d); err != nil {
		t.Fatal(err)
	}
	cs, err := h.DeviceConnectionString(id)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{cs}
	for _, m := range modules {
		cs, err := h.ModuleConnectionString(id, m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cs)
	}
	return all
}

// A keyPair is a self-signed certificate of a device.
type keyPair struct {
	Cert       string `json:"cert"`
	Key        string `json:"key"`
	Thumbprint string `json:"thumbprint"`
}

func newKeyPair(t *testing.T) keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return keyPair{
		Cert:       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:        string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		Thumbprint: hex.EncodeToString(sum[:]),
	}
}
