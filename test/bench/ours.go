//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// oursConfig says how our programs are started. Limits that keep one user from taking
// everything are off: here one user is to take everything.
type oursConfig struct {
	secure bool
	tunnel bool   // with agent and bridge; without, the relay alone
	listen string // of the relay; empty: any port
	dial   string // where the agent finds the relay; empty: directly
}

// maxStreams of one bridge; idle streams are counted in thousands.
const maxStreams = 20_000

// relayEnv are the settings of a relay.
func (l *lab) relayEnv(o oursConfig) []string {
	listen := o.listen
	if listen == "" {
		listen = loopback + ":0"
	}
	env := []string{
		"RELAY_LISTEN=" + listen, "RELAY_ADMIN_LISTEN=" + loopback + ":0", "RELAY_API_KEYS=" + l.keys, "RELAY_DRAIN=0s",
		"RELAY_SIGNALER=fake", "RELAY_FAKE_LISTEN=" + loopback + ":0", "RELAY_FAKE_DEVICES=" + deviceID,
		"RELAY_MAX_BRIDGES=100000", "RELAY_MAX_WAITING=10000", "RELAY_MAX_PER_DEVICE=0", "RELAY_MAX_PER_PRINCIPAL=0",
		"RELAY_CONNECTS_PER_PRINCIPAL=0", "RELAY_CONNECTS_PER_DEVICE=0", "RELAY_CONNECTS_PER_ADDRESS=0",
		"RELAY_MAX_PENDING=0", "RELAY_MAX_PENDING_PER_ADDRESS=0", "RELAY_DIAL_BACK=60s",
	}
	if o.secure {
		env = append(env, "RELAY_TLS_CERT="+l.cert.cert, "RELAY_TLS_KEY="+l.cert.key)
	} else {
		env = append(env, "RELAY_PLAIN=true")
	}
	if o.dial != "" {
		env = append(env, "RELAY_PUBLIC_URL="+scheme(o.secure)+o.dial)
	}
	return env
}

func scheme(secure bool) string {
	if secure {
		return "wss://"
	}
	return "ws://"
}

// otherOf is what the other build is compared as.
var otherOf = map[string]string{ours: other, oursTLS: otherTLS}

// secure says whether a subject uses TLS.
func secure(subject string) bool {
	return subject == oursTLS || subject == otherTLS || subject == chainTLS
}

// startOurs starts our programs, or those of the other build. Of a relay alone, c.addr is
// its address.
func (l *lab) startOurs(ctx context.Context, c *chain, o oursConfig) error {
	dir := l.dir
	if c.name == other || c.name == otherTLS {
		dir = l.against
	}
	relay, err := l.start(filepath.Join(dir, "relay"), l.relayEnv(o))
	if err != nil {
		return err
	}
	c.parts[partRelay] = relay
	m, err := relay.Says(ctx, `msg="relay listens" public=(\S+) .*agents=(\S+)`)
	if err != nil {
		return err
	}
	c.addr, c.hub = m[1], m[2]
	if !o.tunnel {
		return nil
	}
	agent, err := l.start(filepath.Join(dir, "deviceagent"), []string{
		"AGENT_DEVICE_ID=" + deviceID, "AGENT_SIGNALS=fake", "AGENT_FAKE_URL=ws://" + c.hub, "AGENT_RELAY_HOSTS=" + loopback,
		"AGENT_TARGETS=" + deviceID + "=tcp:" + l.target.addr(), fmt.Sprint("AGENT_MAX_STREAMS=", maxStreams), "AGENT_CA_FILE=" + l.cert.cert,
	})
	if err != nil {
		return err
	}
	c.parts[partAgent] = agent
	if _, err := agent.Says(ctx, "listening for signals"); err != nil {
		return err
	}
	tunnel, err := l.start(filepath.Join(dir, "bridge"), []string{
		"BRIDGE_RELAY=" + scheme(o.secure) + c.addr, "BRIDGE_API_KEY=" + l.apiKey, "BRIDGE_CA_FILE=" + l.cert.cert,
	}, "--json", "tunnel", deviceID, deviceID)
	if err != nil {
		return err
	}
	c.parts[partProxy] = tunnel
	m, err = tunnel.Says(ctx, `"event":"listening".*"local":"([^"]+)"(?s:.*)"event":"up"`)
	if err == nil {
		c.addr = m[1]
	}
	return err
}
