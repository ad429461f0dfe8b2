//go:build netns && linux

package netns_test

import (
	"syscall"
	"testing"
	"time"
)

// kill -9 of the owner while requesters wait: they know at once, and the devices when
// they come, by another node.
func TestKillOwnerWaiting(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{})
	owner := w.nodes[0]
	w.acceptsAt(w.nodes[1])
	w.setFront(w.reqFront, requesterNet, owner)
	w.hold()
	direct, behind := w.dials(owner, "pump-1", "a"), w.dials(nil, "pump-2", "b")
	w.held(2)
	owner.Kill()
	for _, c := range []*call{direct, behind} {
		c.fails(slack, exitUnreachable, "unreachable")
	}
	w.release()
	w.logged(slack, "pump-1", "bridge closed", "502 owner_lost")
	w.logged(slack, "pump-2", "bridge closed", "502 owner_lost")
	w.setFront(w.reqFront, requesterNet, w.nodes[1:]...)
	w.call(nil, "pump-1", "c").hangsUp()
	owner.restart()
	w.call(owner, "pump-1", "a").hangsUp()
	w.noGoroutines()
}

// kill -9 of the owner while bridges are open, of which one is forwarded.
func TestKillOwnerOpen(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{})
	owner := w.nodes[0]
	w.setFront(w.reqFront, requesterNet, owner)
	w.acceptsAt(w.nodes[1])
	calls := []*call{w.call(owner, "pump-1", "a"), w.call(nil, "pump-1", "b")}
	w.acceptsAt(owner)
	calls = append(calls, w.call(owner, "pump-2", "c"), w.call(nil, "pump-2", "d"))
	owner.Kill()
	for _, c := range calls {
		c.fails(slack, exitLost, "lost")
		w.logged(slack, c.id, "bridge closed", "target="+c.target)
	}
	owner.restart()
	w.acceptsAt(w.nodes...)
	for range nodeCount {
		w.call(owner, "pump-1", "a").hangsUp()
	}
	w.noGoroutines()
}

// kill -9 of the node by which the device came.
func TestKillForwarder(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{})
	owner, forwarder := w.nodes[0], w.nodes[1]
	w.acceptsAt(forwarder)
	c := w.call(owner, "pump-1", "a")
	w.acceptsAt(w.nodes[2])
	other := w.call(owner, "pump-1", "b")
	forwarder.Kill()
	c.fails(slack, exitLost, "peer_lost")
	w.logged(slack, "pump-1", "bridge closed", "target=a")
	other.works()
	other.hangsUp()
	forwarder.restart()
	w.acceptsAt(forwarder)
	w.call(owner, "pump-1", "c").hangsUp()
	w.noGoroutines()
}

// A node is killed and starts again under the same address, while devices still hold
// tokens of its earlier life. They are told that the bridge is gone, whichever node
// they come to, and no bridge of the new process is touched.
func TestRestartSameAddress(t *testing.T) {
	const wait = 30 * time.Second // the tokens live for longer
	for _, at := range []struct {
		name string
		node int
	}{{"through another", 1}, {"at the owner", 0}} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			w := newTown(t, townOptions{devices: 3, relayEnv: []string{"RELAY_DIAL_BACK=" + wait.String()}})
			owner := w.nodes[0]
			// One device stands still before it has heard the signal, of the other the
			// accept is on its way.
			w.acceptsAt(w.nodes[at.node])
			w.agents["pump-2"].Signal(syscall.SIGSTOP)
			still := w.dials(owner, "pump-2", "a")
			w.signalled("pump-2")
			w.hold()
			late := w.dials(owner, "pump-1", "a")
			w.held(1)
			began := time.Now()
			owner.Kill()
			for _, c := range []*call{still, late} {
				c.fails(slack, exitUnreachable, "unreachable")
			}
			owner.start()
			owner.waitReady()
			// The new process has requesters that wait for the same devices and others.
			fresh := w.dials(owner, "pump-1", "b")
			w.held(2)
			w.release()
			w.logged(slack, "pump-1", "bridge closed", "target=a", "410 bridge_gone")
			fresh.works()
			other := w.call(owner, "pump-3", "a")
			w.agents["pump-2"].Signal(syscall.SIGCONT)
			w.logged(slack, "pump-2", "bridge closed", "target=a", "410 bridge_gone")
			if time.Since(began) > wait {
				t.Errorf("the tokens were too old after %v: this showed nothing", time.Since(began))
			}
			for _, c := range []*call{fresh, other} {
				c.works()
				c.hangsUp()
			}
			w.call(owner, "pump-2", "a").hangsUp()
			w.noGoroutines()
		})
	}
}
