//go:build netns && linux

package netns_test

import (
	"testing"
	"time"
)

// The owner is cut off from the other nodes while its requester waits: the device
// that comes by another node hears so at once, and gives up soon; the requester
// hears when its time is over.
func TestCutFromNodesWaiting(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{})
	owner := w.nodes[0]
	w.acceptsAt(w.nodes[1])
	w.hold()
	c := w.dials(owner, "pump-1", "a")
	began := time.Now()
	w.held(1)
	w.cut(owner.space(), nodeNet)
	w.release()
	w.logged(slack, "pump-1", "dial back failed", "502 owner_lost")
	c.fails(dialBack-time.Since(began)+slack, exitDialBack, "dial_back_timeout")
	w.logged(endDead-time.Since(began), "pump-1", "bridge closed", "502 owner_lost")
	t.Logf("the device gave up after %v", time.Since(began).Round(time.Millisecond))

	// The same node keeps what needs no other.
	w.acceptsAt(owner)
	w.call(owner, "pump-1", "b").hangsUp()
	w.clean() // a network that is back would help
	w.heal(owner.space(), nodeNet)
	w.acceptsAt(w.nodes[1])
	w.call(owner, "pump-1", "c").hangsUp()
	w.noGoroutines()
}

// The owner is cut off from the other nodes while its requester waits, and the device
// comes by one of those first: then it finds the owner.
func TestCutFromNodesFound(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{relayEnv: []string{"RELAY_DIAL_BACK=15s"}})
	owner := w.nodes[0]
	w.acceptsAt(w.nodes[1], owner)
	w.hold()
	c := w.dials(owner, "pump-1", "a")
	w.held(1)
	w.cut(owner.space(), nodeNet)
	w.release()
	c.works()
	w.logged(slack, "pump-1", "dial back failed", "502 owner_lost")
	c.hangsUp()
	w.clean()
	w.heal(owner.space(), nodeNet)
	w.noGoroutines()
}

// The owner is cut off from the devices while its requester waits: the device comes
// by another node.
func TestCutFromDevicesWaiting(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{relayEnv: []string{"RELAY_DIAL_BACK=15s"}})
	owner := w.nodes[0]
	w.hold()
	c := w.dials(owner, "pump-1", "a")
	w.held(1)
	w.cut(owner.space(), deviceNet)
	w.release()
	c.works()
	w.call(owner, "pump-2", "a").hangsUp() // also one that is new
	c.hangsUp()
	w.clean()
	w.heal(owner.space(), deviceNet)
	w.noGoroutines()
}

// The owner is cut off from the devices while bridges are open: the one whose device
// came by another node goes on, the other ends when the owner, and then the device,
// have waited for a sign of life.
func TestCutFromDevicesOpen(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{})
	owner := w.nodes[0]
	w.acceptsAt(w.nodes[1])
	forwarded := w.call(owner, "pump-1", "a")
	w.acceptsAt(owner)
	direct := w.call(owner, "pump-2", "b")
	w.cut(owner.space(), deviceNet)
	began := time.Now()
	direct.fails(nodeDead+slack, exitLost, "peer_dead")
	t.Logf("the requester knew after %v", time.Since(began))
	w.logged(endDead+slack-time.Since(began), "pump-2", "bridge closed", "target=b")
	t.Logf("the device knew after %v", time.Since(began))
	forwarded.works()
	forwarded.hangsUp()
	w.clean()
	w.heal(owner.space(), deviceNet)
	w.noGoroutines()
}

// The owner is cut off from everything, as a machine that stands still. Whatever was
// open ends at both ends when they have waited for a sign of life, and those that
// want a bridge then have one from another node.
func TestCutFromAllOpen(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{})
	owner := w.nodes[0]
	w.setFront(w.reqFront, requesterNet, owner)
	w.acceptsAt(w.nodes[1])
	calls := []*call{w.call(owner, "pump-1", "a"), w.call(nil, "pump-1", "b")}
	w.acceptsAt(owner)
	calls = append(calls, w.call(owner, "pump-2", "c"), w.call(nil, "pump-2", "d"))
	for _, network := range nets {
		w.cut(owner.space(), network)
	}
	began := time.Now()
	w.setFront(w.reqFront, requesterNet, w.nodes...)
	w.acceptsAt(w.nodes...)
	w.call(nil, "pump-1", "e").hangsUp()
	t.Logf("a new bridge was there after %v", time.Since(began))
	for _, c := range calls {
		c.fails(endDead+slack-time.Since(began), exitLost, "lost")
		w.logged(endDead+slack-time.Since(began), c.id, "bridge closed", "target="+c.target)
	}
	t.Logf("both ends of all knew after %v", time.Since(began))
	w.clean()
	for _, network := range nets {
		w.heal(owner.space(), network)
	}
	w.noGoroutines()
}
