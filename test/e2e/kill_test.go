//go:build unix

package e2e_test

import (
	"net"
	"syscall"
	"testing"
)

// Each part is killed, stopped or told to end at each stage of a bridge; every
// other part hears of it, by name, within the timers.

func TestAgentStalledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.Signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	b.Fails(9, "dial_back_timeout")
}

func TestAgentKilledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.Signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	w.signalled()
	w.agent.Signal(syscall.SIGKILL)
	b.Fails(6, "device_offline")
	w.online(false)
	w.startAgent()
	_, local := w.tunnel()
	echoes(t, local)
}

func TestAgentKilledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	tunnel, local := w.tunnel()
	w.relay.Says("bridge open")
	w.relay.SaysTimes("bridge open", 2)
	c, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c, "before")
	w.agent.Signal(syscall.SIGKILL)
	stdio.Fails(11, "peer_lost")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the local connection goes on")
	}
	tunnel.Event("lost", 1)
	w.startAgent()
	tunnel.Event("up", 2)
	echoes(t, local) // at the same address
	tunnel.Signal(syscall.SIGTERM)
	tunnel.Exits(0)
}

// A device that goes silent, cable pulled, is noticed by the ping.
func TestAgentStalledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	w.relay.Says("bridge open")
	w.agent.Signal(syscall.SIGSTOP)
	stdio.Fails(11, "peer_dead")
	w.relay.Says("reason=peer_dead by=device")
}

// Told to end, the agent says goodbye.
func TestAgentStopped(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	w.relay.Says("bridge open")
	w.agent.Says("bridge open") // until then it can only hang up
	w.agent.Signal(syscall.SIGTERM)
	w.agent.Exits(0)
	stdio.Fails(11, "lost")
}

func TestRelayKilledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.Signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	w.signalled()
	w.relay.Signal(syscall.SIGKILL)
	b.Fails(3, "unreachable")
	w.agent.Signal(syscall.SIGCONT)
	w.startRelay()
	w.online(true)
	_, local := w.tunnel()
	echoes(t, local)
}

func TestRelayKilledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	tunnel, local := w.tunnel()
	w.relay.SaysTimes("bridge open", 2)
	w.relay.Signal(syscall.SIGKILL)
	stdio.Fails(11, "lost")
	w.agent.SaysTimes("bridge closed", 2)
	w.startRelay()
	tunnel.Event("up", 2)
	echoes(t, local)
}

// Told to end, the relay drains; who is left is told to connect again.
func TestRelayDrains(t *testing.T) {
	w := newTown(t, "echo")
	stdio := w.bridge("stdio", device, "echo")
	w.relay.Says("bridge open")
	w.relay.Signal(syscall.SIGTERM)
	w.relay.Says("draining")
	refused := w.bridge("stdio", device, "echo")
	refused.Fails(10, "draining")
	stdio.Fails(11, "draining")
	w.relay.Exits(0)
}

func TestRelaySecondSignal(t *testing.T) {
	w := newTown(t, "echo")
	w.relay.Signal(syscall.SIGKILL)
	w.relay.Exits(-1)
	w.relayEnv = append(w.relayEnv, "RELAY_DRAIN=1h")
	w.startRelay()
	w.online(true)
	stdio := w.bridge("stdio", device, "echo")
	w.relay.Says("bridge open")
	w.relay.Signal(syscall.SIGTERM)
	w.relay.Says("draining")
	w.relay.Signal(syscall.SIGTERM)
	w.relay.Exits(0)
	stdio.Fails(11, "draining")
}

func TestRequesterKilledWhileWaiting(t *testing.T) {
	w := newTown(t, "echo")
	w.agent.Signal(syscall.SIGSTOP)
	b := w.bridge("stdio", device, "echo")
	w.signalled()
	b.Signal(syscall.SIGKILL)
	w.relay.Says("reason=requester_out")
	w.agent.Signal(syscall.SIGCONT)
	w.agent.Says("410 bridge_gone")
}

func TestRequesterKilledWhileOpen(t *testing.T) {
	w := newTown(t, "echo")
	_, local := w.tunnel()
	b := w.bridge("stdio", device, "echo")
	w.relay.SaysTimes("bridge open", 2)
	b.Signal(syscall.SIGKILL)
	w.relay.Says("reason=peer_lost by=requester")
	w.agent.Says("bridge closed")
	echoes(t, local) // the neighbour goes on
}

// A hangup ends no relay, and no bridge.
func TestRelayHangup(t *testing.T) {
	w := newTown(t, "echo")
	_, local := w.tunnel()
	w.relay.Signal(syscall.SIGHUP)
	w.relay.Says("reloaded: nothing changed")
	echoes(t, local)
}
