package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"websocketbridge/relay/cluster"
)

// clusterSettings make this node one of several.
type clusterSettings struct {
	Listen  string   `envconfig:"NODE_LISTEN" example:":7443" desc:"node port, where other nodes pass accepts on; none: the only node"`
	Address string   `envconfig:"NODE_ADDRESS" example:"10.0.0.5:7443" desc:"host:port at which they reach it; default: NODE_LISTEN if it names an address, or POD_IP with its port"`
	PodIP   string   `envconfig:"POD_IP" desc:"address of this node where it gets a new one at each start, as in Kubernetes"`
	Peers   []string `envconfig:"PEERS" example:"10.0.0.0/24,relay-nodes.default.svc" desc:"nodes that may be dialled: addresses, ranges, DNS names; with :port if it is not that of NODE_LISTEN"`
	TLS     string   `envconfig:"NODE_TLS" default:"key" desc:"between nodes; key: proven by the token keys; cert: with NODE_CERT, NODE_KEY and NODE_CA besides; none: proven, but not encrypted, and faster"`
	Cert    string   `envconfig:"NODE_CERT" desc:"PEM file with the certificate chain of this node"`
	Key     string   `envconfig:"NODE_KEY" desc:"PEM file with its key"`
	CA      string   `envconfig:"NODE_CA" desc:"PEM file with the certificates of the authority of all nodes"`
}

// Kinds of TLS between nodes.
const (
	nodeTLSKey  = "key"
	nodeTLSCert = "cert"
	nodeTLSNone = "none"
)

// prepare reads the settings of a cluster, and has follow read its files. It returns nil
// for a node that is alone.
func (s *clusterSettings) prepare(keys cluster.Keys, ownKeys bool, follow func(*watched) error, bad complain) *cluster.Config {
	if s.Listen == "" {
		for _, name := range []string{"NODE_ADDRESS", "POD_IP", "PEERS", "NODE_TLS", "NODE_CERT", "NODE_KEY", "NODE_CA"} {
			if _, set := os.LookupEnv("RELAY_" + name); set && name != "POD_IP" { // which a pod may have anyway
				bad(name, "is of no use without RELAY_NODE_LISTEN")
			}
		}
		return nil
	}
	c := &cluster.Config{Keys: keys}
	if ownKeys {
		bad("TOKEN_KEYS", "is missing; nodes need the same keys, or they cannot read each other's tokens; make one with relay token-key")
	}
	host, text, err := net.SplitHostPort(s.Listen)
	port, perr := strconv.ParseUint(text, 10, 16)
	if err != nil || perr != nil || port == 0 {
		bad("NODE_LISTEN", "%q is not host:port with a port of its own, as :7443", s.Listen)
	} else if c.Address = s.address(host, text); c.Address == "" {
		bad("NODE_ADDRESS", "is missing; RELAY_NODE_LISTEN names no address, so set this one, as 10.0.0.5:%d, or RELAY_POD_IP", port)
	} else if err := cluster.CheckAddress(c.Address); err != nil {
		bad("NODE_ADDRESS", "%w", err)
	}
	if len(s.Peers) == 0 {
		bad("PEERS", "is missing; it lists the nodes that may be dialled, as 10.0.0.0/24 or relay-nodes.default.svc")
	} else if c.Peers, err = cluster.ParsePeers(s.Peers, uint16(port)); err != nil {
		bad("PEERS", "%s", strings.ReplaceAll(err.Error(), "\n", "; ")) // one line a setting
	}
	c.TLS = s.tls(follow, bad)
	return c
}

// address is where peers reach this node, or nothing if that is not known.
func (s *clusterSettings) address(host, port string) string {
	ip, err := netip.ParseAddr(host)
	switch {
	case s.Address != "":
		return s.Address
	case host != "" && (err != nil || !ip.IsUnspecified()):
		return net.JoinHostPort(host, port)
	case s.PodIP != "":
		return net.JoinHostPort(s.PodIP, port)
	}
	return ""
}

func (s *clusterSettings) tls(follow func(*watched) error, bad complain) *tls.Config {
	files := []struct{ name, value string }{{"NODE_CERT", s.Cert}, {"NODE_KEY", s.Key}, {"NODE_CA", s.CA}}
	if s.TLS != nodeTLSCert {
		for _, f := range files {
			if f.value != "" {
				bad(f.name, "is of no use with RELAY_NODE_TLS=%s; it is for %s", s.TLS, nodeTLSCert)
			}
		}
	}
	switch s.TLS {
	case nodeTLSNone:
	case nodeTLSKey:
		c, err := cluster.SelfTLS()
		if err != nil {
			bad("NODE_TLS", "%w", err)
		}
		return c
	case nodeTLSCert:
		if i := slices.IndexFunc(files, func(f struct{ name, value string }) bool { return f.value == "" }); i >= 0 {
			bad(files[i].name, "is missing; RELAY_NODE_TLS=%s needs it", nodeTLSCert)
			return nil
		}
		pair, roots := new(keyPair), new(authority)
		if err := follow(&watched{settings: []string{"RELAY_NODE_CERT", "RELAY_NODE_KEY"}, files: []string{s.Cert, s.Key}, apply: pair.apply}); err != nil {
			bad("NODE_CERT", "%w", err)
		}
		if err := follow(&watched{settings: []string{"RELAY_NODE_CA"}, files: []string{s.CA}, apply: roots.apply}); err != nil {
			bad("NODE_CA", "%w", err)
		}
		return cluster.MutualTLS(func() (tls.Certificate, *x509.CertPool) { return *pair.cert.Load(), roots.pool.Load() })
	default:
		bad("NODE_TLS", "%q is not one of %s, %s and %s", s.TLS, nodeTLSKey, nodeTLSCert, nodeTLSNone)
	}
	return nil
}
