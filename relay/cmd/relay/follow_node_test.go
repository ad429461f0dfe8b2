package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"websocketbridge/relay/token"
)

// A node's certificate and its authority are renewed one after the other: for a while it
// trusts both.
func TestReplaceNodeCertificate(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, caFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	oldCert, oldKey := selfSigned(t, "old.example")
	newCert, newKey := selfSigned(t, "new.example")
	put(t, certFile, oldCert)
	put(t, keyFile, oldKey)
	put(t, caFile, oldCert)
	setenv(t, map[string]string{
		"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": "fake", "RELAY_TOKEN_KEYS": token.NewKey().Reveal(),
		"RELAY_NODE_LISTEN": "127.0.0.1:7443", "RELAY_PEERS": "127.0.0.1", "RELAY_NODE_TLS": "cert",
		"RELAY_NODE_CERT": certFile, "RELAY_NODE_KEY": keyFile, "RELAY_NODE_CA": caFile,
	})
	_, p, err := load(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(text string) *x509.Certificate {
		block, _ := pem.Decode([]byte(text))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	trusts := func(text string) bool {
		return p.node.TLS.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf(text)}}) == nil
	}
	shows := func() string {
		c, err := p.node.TLS.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return leaf(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))).DNSNames[0]
	}
	for _, step := range []struct {
		file, text     string
		oldOK, newOK   bool
		shows, setting string // in the log; empty: nothing is said
	}{
		{"", "", true, false, "old.example", ""},
		{caFile, oldCert + newCert, true, true, "old.example", "RELAY_NODE_CA"},
		{certFile, newCert, true, true, "old.example", ""},
		{keyFile, newKey, true, true, "new.example", "RELAY_NODE_CERT, RELAY_NODE_KEY"},
		{caFile, "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n", true, true, "new.example", ""},
		{caFile, newCert, false, true, "new.example", "RELAY_NODE_CA"},
		{caFile, garbage, false, true, "new.example", ""},
	} {
		if step.file != "" {
			put(t, step.file, step.text)
		}
		var log strings.Builder
		for _, w := range p.watched {
			w.look(slog.New(slog.NewTextHandler(&log, nil)), false)
		}
		if !strings.Contains(log.String(), step.setting) || (log.Len() > 0) != (step.setting != "") {
			t.Errorf("%s: said %q, want %q", step.file, log.String(), step.setting)
		}
		if trusts(oldCert) != step.oldOK || trusts(newCert) != step.newOK || shows() != step.shows {
			t.Errorf("%s: trusts old %t, new %t, shows %s", step.file, trusts(oldCert), trusts(newCert), shows())
		}
	}
}
