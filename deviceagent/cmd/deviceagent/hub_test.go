package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	sasKey       = "c2VjcmV0LWtleS1vZi1wdW1wLTc="
	deviceString = "HostName=hub.example.com;DeviceId=pump-7;SharedAccessKey=" + sasKey
	moduleString = "HostName=hub.example.com;DeviceId=pump-7;ModuleId=bridge;SharedAccessKey=" + sasKey
	certString   = "HostName=hub.example.com;DeviceId=pump-7;x509=true"
)

// pair writes a certificate and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// What is wrong with who the device is at its hub, by the variable's name. No key
// is quoted.
func TestHubFaults(t *testing.T) {
	cert, key := pair(t)
	_, other := pair(t)
	file := filepath.Join(t.TempDir(), "device.txt")
	if err := os.WriteFile(file, []byte(moduleString+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string // empty: good
	}{
		{"a device", map[string]string{"HUB_CONNECTION_STRING": deviceString}, ""},
		{"a device by name, too", map[string]string{"HUB_CONNECTION_STRING": deviceString, "DEVICE_ID": "pump-7", "HUB_HOST": "hub.example.com"}, ""},
		{"a module from a file", map[string]string{"HUB_CONNECTION_STRING_FILE": file, "MODULE_ID": "bridge"}, ""},
		{"a certificate", map[string]string{"HUB_CONNECTION_STRING": certString, "HUB_CERT": cert, "HUB_KEY": key}, ""},
		{"a certificate without a string", map[string]string{"HUB_HOST": "hub.example.com", "DEVICE_ID": "pump-7", "MODULE_ID": "bridge", "HUB_CERT": cert, "HUB_KEY": key}, ""},
		{"everything else", map[string]string{"HUB_CONNECTION_STRING": deviceString, "HUB_WEBSOCKET": "true", "HUB_ADDR": "127.0.0.1:1", "HUB_KEEP_ALIVE": "4m", "HUB_TOKEN_LIFE": "24h"}, ""},

		{"nothing", nil, "AGENT_HUB_CONNECTION_STRING: is missing"},
		{"a service", map[string]string{"HUB_CONNECTION_STRING": "HostName=h;SharedAccessKeyName=service;SharedAccessKey=" + sasKey}, "AGENT_HUB_CONNECTION_STRING: is a service's"},
		{"no string at all", map[string]string{"HUB_CONNECTION_STRING": sasKey}, "AGENT_HUB_CONNECTION_STRING: has"},
		{"another device", map[string]string{"HUB_CONNECTION_STRING": deviceString, "DEVICE_ID": "pump-8"}, `AGENT_DEVICE_ID: is "pump-8", but the connection string's device is "pump-7"`},
		{"another hub", map[string]string{"HUB_CONNECTION_STRING": deviceString, "HUB_HOST": "other"}, `AGENT_HUB_HOST: is "other", but the connection string's hub is`},
		{"another module", map[string]string{"HUB_CONNECTION_STRING": moduleString, "MODULE_ID": "m"}, `AGENT_MODULE_ID: is "m", but the connection string's module is "bridge"`},
		{"the device's string for a module", map[string]string{"HUB_CONNECTION_STRING": deviceString, "MODULE_ID": "m"}, `AGENT_MODULE_ID: is "m", but the connection string is the device's own; take the module's`},
		{"a key and a certificate", map[string]string{"HUB_CONNECTION_STRING": deviceString, "HUB_CERT": cert, "HUB_KEY": key}, "AGENT_HUB_CERT: is set, and the connection string has a key"},
		{"no certificate", map[string]string{"HUB_CONNECTION_STRING": certString}, "AGENT_HUB_CERT: is missing"},
		{"no key", map[string]string{"HUB_CONNECTION_STRING": certString, "HUB_CERT": cert}, "AGENT_HUB_KEY: is missing"},
		{"another certificate's key", map[string]string{"HUB_CONNECTION_STRING": certString, "HUB_CERT": cert, "HUB_KEY": other}, "AGENT_HUB_CERT: tls: private key does not match"},
		{"no such certificate", map[string]string{"HUB_CONNECTION_STRING": certString, "HUB_CERT": "/nowhere", "HUB_KEY": key}, "AGENT_HUB_CERT: open /nowhere: no such file"},
		{"the key itself", map[string]string{"HUB_CONNECTION_STRING": certString, "HUB_CERT": cert, "HUB_KEY": sasKey}, "AGENT_HUB_CERT: AGENT_HUB_KEY names no file that can be read: no such file"},
		{"a host without a device", map[string]string{"HUB_HOST": "h", "HUB_CERT": cert, "HUB_KEY": key}, "AGENT_DEVICE_ID: is missing"},
		{"a host with a port", map[string]string{"HUB_HOST": "h:8883", "DEVICE_ID": "d", "HUB_CERT": cert, "HUB_KEY": key}, `AGENT_HUB_HOST: "h:8883" is not a name alone`},
		{"an odd address", map[string]string{"HUB_CONNECTION_STRING": deviceString, "HUB_ADDR": "h"}, `AGENT_HUB_ADDR: "h" is not a host and port`},
		{"a long keep-alive", map[string]string{"HUB_CONNECTION_STRING": deviceString, "HUB_KEEP_ALIVE": "1h"}, "AGENT_HUB_KEEP_ALIVE: 1h0m0s is not whole seconds from 1s to 19m37s"},
		{"a short token", map[string]string{"HUB_CONNECTION_STRING": deviceString, "HUB_TOKEN_LIFE": "1ms"}, "AGENT_HUB_TOKEN_LIFE: 1ms"},
		{"an odd device", map[string]string{"HUB_HOST": "h", "DEVICE_ID": "a b", "HUB_CERT": cert, "HUB_KEY": key}, "AGENT_DEVICE_ID: has ' '"},
		{"not for the fake hub", map[string]string{"SIGNALS": "fake", "DEVICE_ID": "d", "HUB_CONNECTION_STRING": deviceString}, "AGENT_HUB_CONNECTION_STRING: is for AGENT_SIGNALS=hub, which is fake"},
		{"no module for the fake hub", map[string]string{"SIGNALS": "fake", "DEVICE_ID": "d", "MODULE_ID": "m"}, "AGENT_MODULE_ID: is for AGENT_SIGNALS=hub, which is fake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_TARGETS": "echo"}
			for name, value := range tt.env {
				env["AGENT_"+name] = value
			}
			setenv(t, env)
			var log bytes.Buffer
			cfg, _, err := load("", nil, nil, &log)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.want == "" && (cfg.DeviceID != "pump-7" || cfg.Source == nil || log.Len() > 0):
				t.Errorf("device %q, source %v, log %q", cfg.DeviceID, cfg.Source, &log)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), sasKey) {
				t.Errorf("a key is quoted: %v", err)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		env := map[string]string{
			"AGENT_HUB_CONNECTION_STRING": deviceString, "AGENT_HUB_HOST": "other", "AGENT_DEVICE_ID": "pump-8", "AGENT_HUB_ADDR": "h", "AGENT_HUB_KEEP_ALIVE": "1ms", "AGENT_HUB_CERT": cert,
		}
		setenv(t, env)
		_, _, err := load("", nil, nil, io.Discard)
		for name := range env {
			if want := name + ": "; name != "AGENT_HUB_CONNECTION_STRING" && (err == nil || strings.Count(err.Error(), want) != 1) {
				t.Errorf("%s is not named once: %v", name, err)
			}
		}
	})
}

// A hub that is down does not end the daemon: SIGTERM does.
func TestHubDown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	setenv(t, map[string]string{"AGENT_RELAY_HOSTS": "127.0.0.1", "AGENT_TARGETS": "echo", "AGENT_HUB_CONNECTION_STRING": deviceString, "AGENT_HUB_ADDR": addr})
	ctx, stop := context.WithCancel(context.Background())
	log, ended := &logged{}, make(chan error, 1)
	go func() { ended <- run(ctx, nil, nil, io.Discard, log) }()
	log.wait(t, "the hub is not reached; trying until it is")
	stop()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	for _, want := range []string{"hub=hub.example.com", "device=pump-7", "where port 8883 is blocked"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, log)
		}
	}
	if strings.Contains(log.String(), sasKey) {
		t.Errorf("the key is in the log:\n%s", log)
	}
}
