//go:build netns && linux

package netns_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

// roll stops a node as an orchestrator does, waits until it has ended, and starts it
// again. limit is for the drain.
func (n *node) roll(limit time.Duration) (took time.Duration) {
	n.w.t.Helper()
	began := time.Now()
	n.Signal(syscall.SIGTERM)
	n.ExitsWithin(limit, 0)
	took = time.Since(began)
	n.restart()
	return took
}

// All nodes are rolled under a load of short bridges. Each ends well, or with a code
// that says that trying again helps.
func TestRollShort(t *testing.T) {
	t.Parallel()
	w := newTown(t, townOptions{devices: 4})
	var (
		wg   sync.WaitGroup
		stop = make(chan struct{})
		mu   sync.Mutex
		ends = map[string]int{} // by code
		late []string
	)
	for i := range 4 {
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				c := w.dials(nil, deviceID(i+1), targetNames[k%len(targetNames)])
				text := fmt.Sprintf("%s-%d", c.id, k)
				fmt.Fprintln(c.In, text)
				c.CloseInput()
				began := time.Now()
				select {
				case <-c.Done():
				case <-time.After(patience):
					t.Errorf("%s to %s does not end", c.Name, c.id)
					return
				}
				end := c.ends(text)
				mu.Lock()
				if ends[end]++; ends[end] == 1 && end != "well" {
					t.Logf("the first that ended with %s: %s", end, c.String())
				}
				if time.Since(began) > dialBack+slack {
					late = append(late, fmt.Sprintf("%s took %v", end, time.Since(began)))
				}
				mu.Unlock()
			}
		})
	}
	for _, n := range w.nodes {
		n.roll(patience)
		<-time.After(time.Second) // of load on all three
	}
	close(stop)
	wg.Wait()
	t.Logf("short bridges by how they ended: %v", ends)
	for end := range ends {
		// A front asks for readiness now and then, so a node is met that drains, or has
		// just closed its port on a connection that it had not taken yet.
		if !slices.Contains([]string{"well", "draining", "unreachable"}, end) {
			t.Errorf("some ended with %q", end)
		}
	}
	if ends["well"] < 20 || len(late) > 0 {
		t.Errorf("%d ended well, and too late: %v", ends["well"], late)
	}
	for range nodeCount {
		w.call(nil, "pump-1", "a").hangsUp()
	}
	w.noGoroutines()
}

// ends says how a call has ended that was to echo text: well, with a code, or what
// was wrong with it.
func (c *call) ends(text string) string {
	out := c.String()
	if c.ExitCode() == 0 {
		if !strings.Contains(out, "this is "+c.id+" "+c.target+"\n") || !strings.Contains(out, "echo "+text+"\n") {
			return "joined wrongly: " + out
		}
		return "well"
	}
	if errors := c.Events("error"); len(errors) == 1 && errors[0].Text("code") != "" {
		return errors[0].Text("code")
	}
	return "without a code: " + out
}

// tunnel is one bridge tunnel.
type tunnel struct {
	*processtest.Process
	w          *town
	id, target string
	local      string
}

func (w *town) tunnel(i int) *tunnel {
	tn := &tunnel{w: w, id: deviceID(i%len(w.agents) + 1), target: targetNames[i/len(w.agents)%len(targetNames)]}
	tn.Process = w.bridge(nil, "tunnel", tn.id, tn.target)
	return tn
}

func (tn *tunnel) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return tn.w.dial(ctx, "users", tn.local)
}

// works connects through the tunnel, checks whom that reaches, and returns how long
// it took.
func (tn *tunnel) works() (time.Duration, error) {
	began := time.Now()
	c, err := tn.dial()
	if err != nil {
		return time.Since(began), err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, tn.local); err != nil {
		return time.Since(began), err
	}
	r := bufio.NewReader(c)
	if err := greets(r, tn.id+" "+tn.target); err != nil {
		return time.Since(began), err
	}
	if line, err := r.ReadString('\n'); err != nil || line != "echo "+tn.local+"\n" {
		return time.Since(began), fmt.Errorf("got %q, %w", line, err)
	}
	return time.Since(began), nil
}

const (
	transferSize = 2 << 20          // bytes
	backWithin   = 10 * time.Second // for a tunnel whose node stops
)

// All nodes are rolled while tunnels are open. Transfers under way end as if nothing
// had happened, and a tunnel that is idle can be used at any time, 10 s later at
// worst.
func TestRollTunnels(t *testing.T) {
	idleCount, busyCount := numberEnv(t, "NETNS_IDLE", 60), numberEnv(t, "NETNS_BUSY", 6)
	transfer := durationEnv(t, "NETNS_TRANSFER", 8*time.Second)
	w := newTown(t, townOptions{devices: 10})
	tunnels := make([]*tunnel, idleCount+busyCount)
	for batch := range slices.Chunk(indexes(len(tunnels)), 10) { // each a process that starts
		for _, i := range batch {
			tunnels[i] = w.tunnel(i)
		}
		for _, i := range batch {
			tunnels[i].local = tunnels[i].Event("listening", 1).Text("local")
			tunnels[i].Event("up", 1)
		}
	}
	busy, idle := tunnels[:busyCount], tunnels[busyCount:]
	if at := w.owners(tunnels); len(at) != nodeCount {
		t.Errorf("tunnels are at nodes %v", at)
	}
	for _, n := range w.nodes {
		var transfers, begun sync.WaitGroup
		for i, tn := range busy {
			begun.Add(1)
			transfers.Go(func() {
				c, err := tn.dial()
				if err != nil {
					begun.Done()
					t.Errorf("busy tunnel %d: %v", i, err)
					return
				}
				defer c.Close()
				if err := fetchBulk(c, tn.id+" "+tn.target, transferSize, transfer, uint64(i), begun.Done); err != nil {
					t.Errorf("busy tunnel %d, while %s is rolled: %v", i, n.space(), err)
				}
			})
		}
		begun.Wait()
		had := w.owners(tunnels)
		stop := make(chan struct{})
		var users sync.WaitGroup
		var longest atomic.Int64
		var checks atomic.Int64
		began := time.Now()
		for part := range slices.Chunk(idle, (len(idle)+3)/4) {
			users.Go(func() { w.use(part, stop, &longest, &checks) })
		}
		drained := n.roll(patience)
		transfers.Wait()
		if early := began.Add(backWithin); time.Now().Before(early) {
			<-time.After(time.Until(early)) // the time that tunnels have to be back
		}
		close(stop)
		users.Wait()
		for i, tn := range idle {
			if took, err := tn.works(); err != nil || took > slack {
				t.Errorf("idle tunnel %d, after %s was rolled: %v, %v", i, n.space(), took, err)
			}
		}
		if d := time.Duration(longest.Load()); d > backWithin {
			t.Errorf("an idle tunnel could not be used for %v while %s was rolled", d, n.space())
		}
		t.Logf("%s had %d of %v and ended after %v; %d connections through idle tunnels meanwhile took %v at most",
			n.space(), had[n.i], had, drained.Round(time.Millisecond), checks.Load(), time.Duration(longest.Load()).Round(time.Millisecond))
	}
	events := map[string]int{}
	var slowest time.Duration
	for _, tn := range tunnels {
		var moving time.Time
		for _, e := range tn.Events("up", "moving", "retry", "lost", "refused") {
			name := e.Text("event")
			if events[name]++; name == "moving" && moving.IsZero() {
				moving = e.At
			} else if name == "up" && !moving.IsZero() {
				slowest, moving = max(slowest, e.At.Sub(moving)), time.Time{}
			}
		}
	}
	// Moves in a row wait for longer and longer, but the old bridge works meanwhile.
	t.Logf("events of all tunnels: %v; the slowest move took %v", events, slowest.Round(time.Millisecond))
	if events["lost"] > 0 || events["refused"] > 0 || events["moving"] == 0 {
		t.Error("tunnels are to move before they are lost")
	}
	for _, tn := range tunnels {
		tn.Signal(syscall.SIGTERM)
	}
	for _, tn := range tunnels {
		tn.ExitsWithin(slack, 0)
	}
	w.noGoroutines()
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// use connects through tunnels, one after the other, until stop is closed.
func (w *town) use(tunnels []*tunnel, stop <-chan struct{}, longest, checks *atomic.Int64) {
	for {
		for _, tn := range tunnels {
			took, err := tn.works()
			if err != nil {
				w.t.Errorf("an idle tunnel to %s: %v after %v", tn.id, err, took)
				return
			}
			checks.Add(1)
			for old := longest.Load(); int64(took) > old && !longest.CompareAndSwap(old, int64(took)); old = longest.Load() {
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// owners counts which node has how many of the tunnels. A node may log a bridge just
// after its requester knows.
func (w *town) owners(tunnels []*tunnel) (at map[int]int) {
	w.t.Helper()
	until(w.t, "the nodes have logged all tunnels", func() bool {
		node := map[string]int{}
		for _, n := range w.nodes {
			for _, l := range n.Out.Lines() {
				if _, rest, ok := strings.Cut(l.Text, `msg="bridge open" bridge=`); ok {
					id, _, _ := strings.Cut(rest, " ")
					node[id] = n.i
				}
			}
		}
		at = map[int]int{}
		for _, tn := range tunnels {
			ups := tn.Events("up")
			at[node[ups[len(ups)-1].Text("bridgeId")]]++
		}
		return at[0] == 0
	})
	return at
}

// What does not end by itself is ended by the drain's deadline, with a word why, also
// where the node that stops is the one by which the device came. A tunnel whose
// connection was cut so takes the next one.
func TestDrainDeadline(t *testing.T) {
	const drain = 2 * time.Second
	for _, c := range []struct {
		name string
		node int // that stops
	}{{"owner", 0}, {"forwarder", 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newTown(t, townOptions{relayEnv: []string{"RELAY_DRAIN=" + drain.String()}})
			w.setFront(w.reqFront, requesterNet, w.nodes[0])
			w.acceptsAt(w.nodes[1])
			stays := w.call(nil, "pump-1", "a")
			tn := w.tunnel(0)
			tn.local = tn.Event("listening", 1).Text("local")
			conn, err := tn.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			if err := greets(bufio.NewReader(conn), tn.id+" "+tn.target); err != nil {
				t.Fatal(err)
			}
			w.setFront(w.reqFront, requesterNet, w.nodes...)
			w.acceptsAt(w.nodes...)
			n := w.nodes[c.node]
			began := time.Now()
			n.Signal(syscall.SIGTERM)
			stays.fails(drain+slack, exitLost, "draining")
			if known := time.Since(began); known < drain {
				t.Errorf("it was cut after %v, before the deadline", known)
			}
			if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("a connection that was cut reads %d bytes, %v", n, err)
			}
			n.ExitsWithin(drain+2*slack-time.Since(began), 0)
			if took, err := tn.works(); err != nil || time.Since(began) > drain+backWithin {
				t.Errorf("the tunnel works again: %v, after %v", err, took)
			}
			t.Logf("all was well again after %v", time.Since(began).Round(time.Millisecond))
			n.restart()
			tn.Signal(syscall.SIGTERM)
			tn.ExitsWithin(slack, 0)
			w.noGoroutines()
		})
	}
}
