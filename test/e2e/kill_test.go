//go:build unix

package e2e_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
)

// Each part is killed, stopped or told to end at each stage of a bridge; every
// other part hears of it, by name, within the timers.

func TestAgentStalledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	b.fails(9, "dial_back_timeout")
}

func TestAgentKilledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	w.signalled()
	w.agent.signal(syscall.SIGKILL)
	b.fails(6, "device_offline")
	w.online(false)
	w.startAgent()
	_, local := w.tunnel()
	echoes(t, local)
}

func TestAgentKilledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	tunnel, local := w.tunnel()
	w.relay.says("bridge open")
	until(t, "both are open", func() bool { return strings.Count(w.relay.out.String(), "bridge open") == 2 })
	c, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c, "before")
	w.agent.signal(syscall.SIGKILL)
	stdio.fails(11, "peer_lost")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the local connection goes on")
	}
	tunnel.event("lost", 1)
	w.startAgent()
	tunnel.event("up", 2)
	echoes(t, local) // at the same address
	tunnel.signal(syscall.SIGTERM)
	tunnel.exits(0)
}

// A device that goes silent, cable pulled, is noticed by the ping.
func TestAgentStalledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	w.relay.says("bridge open")
	w.agent.signal(syscall.SIGSTOP)
	stdio.fails(11, "peer_dead")
	w.relay.says("reason=peer_dead by=device")
}

// Told to end, the agent says goodbye.
func TestAgentStopped(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	w.relay.says("bridge open")
	w.agent.says("bridge open") // until then it can only hang up
	w.agent.signal(syscall.SIGTERM)
	w.agent.exits(0)
	stdio.fails(11, "lost")
}

func TestRelayKilledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	w.signalled()
	w.relay.signal(syscall.SIGKILL)
	b.fails(3, "unreachable")
	w.agent.signal(syscall.SIGCONT)
	w.startRelay()
	w.online(true)
	_, local := w.tunnel()
	echoes(t, local)
}

func TestRelayKilledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	tunnel, local := w.tunnel()
	until(t, "both are open", func() bool { return strings.Count(w.relay.out.String(), "bridge open") == 2 })
	w.relay.signal(syscall.SIGKILL)
	stdio.fails(11, "lost")
	until(t, "the agent sees both end", func() bool { return strings.Count(w.agent.out.String(), "bridge closed") == 2 })
	w.startRelay()
	tunnel.event("up", 2)
	echoes(t, local)
}

// Told to end, the relay drains; who is left is told to connect again.
func TestRelayDrains(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	w.relay.says("bridge open")
	w.relay.signal(syscall.SIGTERM)
	w.relay.says("draining")
	refused := w.bridge("stdio", device, "echo")
	refused.fails(10, "draining")
	stdio.fails(11, "draining")
	w.relay.exits(0)
}

func TestRelaySecondSignal(t *testing.T) {
	w := newTown(t, "echo")
	w.relay.signal(syscall.SIGKILL)
	w.relay.exits(-1)
	w.relayEnv = append(w.relayEnv, "RELAY_DRAIN=1h")
	w.startRelay()
	w.online(true)
	stdio := w.bridge("stdio", device, "echo")
	w.relay.says("bridge open")
	w.relay.signal(syscall.SIGTERM)
	w.relay.says("draining")
	w.relay.signal(syscall.SIGTERM)
	w.relay.exits(0)
	stdio.fails(11, "draining")
}

func TestRequesterKilledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	w.signalled()
	b.signal(syscall.SIGKILL)
	w.relay.says("reason=requester_out")
	w.agent.signal(syscall.SIGCONT)
	w.agent.says("410 bridge_gone")
}

func TestRequesterKilledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	_, local := w.tunnel()
	b := w.bridge("stdio", device, "echo")
	until(t, "both are open", func() bool { return strings.Count(w.relay.out.String(), "bridge open") == 2 })
	b.signal(syscall.SIGKILL)
	w.relay.says("reason=peer_lost by=requester")
	w.agent.says("bridge closed")
	echoes(t, local) // the neighbour goes on
}

// A hangup ends no relay, and no bridge.
func TestRelayHangup(t *testing.T) {
	w := newTown(t, "echo")
	_, local := w.tunnel()
	w.relay.signal(syscall.SIGHUP)
	w.relay.says("reloaded: nothing changed")
	echoes(t, local)
}
