package main

import (
	"io"
	"maps"
	"strings"
	"testing"

	"websocketbridge/relay/token"
)

// aNode is the environment of a node that is one of several, with changes; an empty
// value is not set.
func aNode(change map[string]string) map[string]string {
	env := map[string]string{
		"RELAY_AUTH": "none", "RELAY_PLAIN": "true", "RELAY_SIGNALER": "fake", "RELAY_LISTEN": "127.0.0.1:0",
		"RELAY_TOKEN_KEYS": token.NewKey().Reveal(), "RELAY_NODE_LISTEN": "10.0.0.5:7443", "RELAY_PEERS": "10.0.0.0/24",
	}
	maps.Copy(env, change)
	maps.DeleteFunc(env, func(_, value string) bool { return value == "" })
	return env
}

func TestClusterFaults(t *testing.T) {
	const address = "RELAY_NODE_ADDRESS: is missing; RELAY_NODE_LISTEN names no address, so set this one, as 10.0.0.5:7443, or RELAY_POD_IP"
	for _, tt := range []struct {
		name   string
		change map[string]string
		want   []string
	}{
		{"no keys in common", map[string]string{"RELAY_TOKEN_KEYS": ""}, []string{"RELAY_TOKEN_KEYS: is missing; nodes need the same keys"}},
		{"no peers", map[string]string{"RELAY_PEERS": ""}, []string{"RELAY_PEERS: is missing; it lists the nodes that may be dialled"}},
		{"peers that are none", map[string]string{"RELAY_PEERS": "10.0.0.0/33, node:0,10.0.0.1"}, []string{
			`RELAY_PEERS: "10.0.0.0/33" is not an address, a range or a DNS name, as 10.1.2.3, 10.1.0.0/16 or relay-nodes.default.svc, each perhaps with :port; "node:0" has port "0"; ports are 1 to 65535`,
		}},
		{"everybody is a peer", map[string]string{"RELAY_PEERS": "0.0.0.0/0"}, []string{`RELAY_PEERS: "0.0.0.0/0" is every address there is`}},
		{"any port", map[string]string{"RELAY_NODE_LISTEN": "10.0.0.5:0"}, []string{`RELAY_NODE_LISTEN: "10.0.0.5:0" is not host:port with a port of its own, as :7443`}},
		{"no port", map[string]string{"RELAY_NODE_LISTEN": "10.0.0.5"}, []string{`RELAY_NODE_LISTEN: "10.0.0.5" is not host:port`}},
		{"every address", map[string]string{"RELAY_NODE_LISTEN": ":7443"}, []string{address}},
		{"every address, written out", map[string]string{"RELAY_NODE_LISTEN": "[::]:7443"}, []string{address}},
		{"an address for nobody", map[string]string{"RELAY_NODE_ADDRESS": "0.0.0.0:7443"}, []string{`RELAY_NODE_ADDRESS: "0.0.0.0:7443" is every address of a machine; peers need one`}},
		{"an address without a port", map[string]string{"RELAY_NODE_ADDRESS": "10.0.0.5"}, []string{`RELAY_NODE_ADDRESS: "10.0.0.5" is not host:port`}},
		{"another TLS", map[string]string{"RELAY_NODE_TLS": "maybe"}, []string{`RELAY_NODE_TLS: "maybe" is not one of key, cert and none`}},
		{"certificates that are not there", map[string]string{"RELAY_NODE_TLS": "cert"}, []string{"RELAY_NODE_CERT: is missing; RELAY_NODE_TLS=cert needs it"}},
		{"certificates for nothing", map[string]string{"RELAY_NODE_CA": "ca.pem"}, []string{"RELAY_NODE_CA: is of no use with RELAY_NODE_TLS=key; it is for cert"}},
		{"alone", map[string]string{"RELAY_NODE_LISTEN": "", "RELAY_NODE_ADDRESS": "10.0.0.5:7443", "RELAY_NODE_TLS": "none"}, []string{
			"RELAY_NODE_ADDRESS: is of no use without RELAY_NODE_LISTEN", "RELAY_PEERS: is of no use without RELAY_NODE_LISTEN", "RELAY_NODE_TLS: is of no use",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, aNode(tt.change))
			_, _, err := load(io.Discard)
			if err == nil {
				t.Fatal("no fault")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %s", err, want)
				}
			}
			if got := strings.Count(err.Error(), "\n  RELAY_"); len(tt.want) > 1 && got != len(tt.want) || len(tt.want) == 1 && got > 0 {
				t.Errorf("not these faults only: %v", err)
			}
		})
	}
}

func TestNodeAddress(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change map[string]string
		want   string
	}{
		{"of the listener", nil, "10.0.0.5:7443"},
		{"IPv6", map[string]string{"RELAY_NODE_LISTEN": "[fd00::5]:7443"}, "[fd00::5]:7443"},
		{"a name", map[string]string{"RELAY_NODE_LISTEN": "relay-0.nodes:7443"}, "relay-0.nodes:7443"},
		{"of the pod", map[string]string{"RELAY_NODE_LISTEN": ":7443", "RELAY_POD_IP": "10.0.0.9"}, "10.0.0.9:7443"},
		{"of an IPv6 pod", map[string]string{"RELAY_NODE_LISTEN": ":7443", "RELAY_POD_IP": "fd00::9"}, "[fd00::9]:7443"},
		{"the listener's before the pod's", map[string]string{"RELAY_POD_IP": "10.0.0.9"}, "10.0.0.5:7443"},
		{"its own", map[string]string{"RELAY_NODE_ADDRESS": "192.0.2.1:443", "RELAY_POD_IP": "10.0.0.9"}, "192.0.2.1:443"},
		{"alone in a pod", map[string]string{"RELAY_NODE_LISTEN": "", "RELAY_PEERS": "", "RELAY_POD_IP": "10.0.0.9"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, aNode(tt.change))
			_, p, err := load(io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if p.node != nil {
				got = p.node.Address
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if p.node != nil && p.node.TLS == nil {
				t.Error("no TLS by default")
			}
		})
	}
}
