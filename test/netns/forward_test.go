//go:build netns && linux

package netns_test

import "testing"

// Whichever node takes the connect and whichever the accept, the bridge opens.
func TestForward(t *testing.T) {
	for _, mode := range []string{"key", "none"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newTown(t, townOptions{relayEnv: []string{"RELAY_NODE_TLS=" + mode}})
			for _, owner := range w.nodes {
				for _, at := range w.nodes {
					w.acceptsAt(at)
					w.call(owner, "pump-1", "a").hangsUp()
				}
			}
			// A forward has its two sockets and nothing else, pipes neither.
			w.acceptsAt(w.nodes[1])
			w.call(w.nodes[0], "pump-1", "a").hangsUp()
			w.clean()
			before := w.nodes[1].descriptors().pipes
			for range 20 {
				w.call(w.nodes[0], "pump-1", "a").hangsUp()
			}
			w.clean()
			if n := w.nodes[1].descriptors().pipes; n > before+8 {
				t.Errorf("after 20 forwards more there are %d pipes, and there were %d", n, before)
			} else {
				t.Logf("%d ends of pipes, before %d", n, before)
			}
			w.acceptsAt(w.nodes...)
			for range 6 {
				w.call(nil, "pump-2", "b").hangsUp()
			}
			w.noGoroutines()
		})
	}
}
