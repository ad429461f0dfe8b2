//go:build netns && linux

package netns_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Each relation has a network of its own, so that each can be cut alone.
const (
	requesterNet = "req"  // requesters, their front, nodes
	deviceNet    = "dev"  // devices, their front, nodes
	nodeNet      = "node" // nodes
	hubNet       = "hub"  // the hub, nodes, devices
)

var nets = []string{requesterNet, deviceNet, nodeNet, hubNet}

// Hosts, by the last byte of their addresses. Node i is nodeHost+i.
const (
	frontHost = 2
	userHost  = 3 // requesters, or devices
	hubHost   = 4
	nodeHost  = 10
)

// address is a host's in a network.
func address(network string, host int) string {
	for i, n := range nets {
		if n == network {
			return fmt.Sprintf("10.77.%d.%d", i+1, host)
		}
	}
	panic("no network " + network)
}

func hardware(network string, host int) string {
	ip := net.ParseIP(address(network, host)).To4()
	return fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", ip[0], ip[1], ip[2], ip[3])
}

// wires are the networks of one test: an Ethernet bridge for each in one namespace,
// and a namespace for each host.
type wires struct {
	t    *testing.T
	name string // starts the names of the namespaces
	legs []leg
}

type leg struct {
	network string
	space   string // short name of the namespace
	host    int
}

// port is the leg's end in the switch.
func (l leg) port() string { return l.space + "-" + l.network }

var wiresMade atomic.Int64

// newWires lays wires. They go with the test, however it ends.
func newWires(t *testing.T, legs []leg) *wires {
	t.Helper()
	w := &wires{t: t, name: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), wiresMade.Add(1)), legs: legs}
	spaces := []string{"switch"}
	for _, l := range legs {
		if last := spaces[len(spaces)-1]; l.space != last {
			spaces = append(spaces, l.space)
		}
	}
	t.Cleanup(func() {
		for _, s := range spaces {
			run(nil, "ip", "netns", "del", w.space(s)) // fails where it was not made
		}
	})
	batch := map[string]*strings.Builder{}
	for _, s := range spaces {
		w.must(nil, "ip", "netns", "add", w.space(s))
		batch[s] = new(strings.Builder)
		fmt.Fprintln(batch[s], "link set lo up")
	}
	for _, n := range nets {
		fmt.Fprintf(batch["switch"], "link add name %s type bridge\nlink set dev %s up\n", n, n)
	}
	for _, l := range legs {
		fmt.Fprintf(batch["switch"], "link add name %s type veth peer name %s address %s netns %s\nlink set dev %s master %s up\n",
			l.port(), l.network, hardware(l.network, l.host), w.space(l.space), l.port(), l.network)
		fmt.Fprintf(batch[l.space], "addr add %s/24 dev %s\nlink set dev %s up\n", address(l.network, l.host), l.network, l.network)
		// Everybody knows everybody's hardware address: that nobody answers a question
		// for it would tell of a cut, and routers do not tell.
		for _, other := range legs {
			if other.network == l.network && other.host != l.host {
				fmt.Fprintf(batch[l.space], "neigh add %s lladdr %s dev %s nud permanent\n",
					address(other.network, other.host), hardware(other.network, other.host), l.network)
			}
		}
	}
	for _, s := range spaces { // the switch comes first, and makes the links of the others
		w.must([]byte(batch[s].String()), "ip", "-n", w.space(s), "-batch", "-")
	}
	return w
}

func (w *wires) space(short string) string { return w.name + short }

// cut takes a host off a network. What it sends is lost without a word, and so is
// what it is sent.
func (w *wires) cut(space, network string) {
	w.t.Helper()
	w.must(nil, "ip", "-n", w.space("switch"), "link", "set", "dev", leg{network: network, space: space}.port(), "nomaster")
}

// heal undoes a cut.
func (w *wires) heal(space, network string) {
	w.t.Helper()
	w.must(nil, "ip", "-n", w.space("switch"), "link", "set", "dev", leg{network: network, space: space}.port(), "master", network)
}

func (w *wires) must(input []byte, name string, args ...string) {
	w.t.Helper()
	if err := run(input, name, args...); err != nil {
		w.t.Fatal(err)
	}
}

func run(input []byte, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// dial connects from within a namespace. A socket belongs to the namespace of the
// thread that makes it, whoever uses it later.
func (w *wires) dial(ctx context.Context, space, addr string) (c net.Conn, err error) {
	within, err := os.Open("/run/netns/" + w.space(space))
	if err != nil {
		return nil, err
	}
	defer within.Close()
	var wg sync.WaitGroup
	wg.Go(func() { // of its own: a thread that cannot return ends with its goroutine
		runtime.LockOSThread()
		var home *os.File
		if home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		defer home.Close()
		if err = unix.Setns(int(within.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp4", addr) // an address: names would be looked up by other threads
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	})
	wg.Wait()
	return c, err
}
