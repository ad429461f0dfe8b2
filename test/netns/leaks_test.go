//go:build netns && linux

package netns_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"websocketbridge/test/process/processtest"
)

// socket is a TCP socket of a namespace.
type socket struct {
	local, remote string
	listens       bool
	unread        int    // bytes
	inode         string // "0": no process has it
}

func (s socket) String() string { return s.local + "-" + s.remote }

// sockets lists those of a process's namespace.
func sockets(t *testing.T, p *processtest.Process) (all []socket) {
	t.Helper()
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.PID(), table))
		if err != nil {
			continue // it has just ended
		}
		for _, row := range strings.Split(string(b), "\n")[1:] {
			f := strings.Fields(row)
			if len(f) < 10 {
				continue
			}
			_, unread, _ := strings.Cut(f[4], ":")
			n, _ := strconv.ParseInt(unread, 16, 64)
			all = append(all, socket{procAddr(t, f[1]), procAddr(t, f[2]), f[3] == "0A", int(n), f[9]})
		}
	}
	return all
}

// procAddr reads an address of /proc/net/tcp: words in the machine's order, which
// is little-endian on all that we run on.
func procAddr(t *testing.T, text string) string {
	t.Helper()
	words, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(words)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil {
		t.Fatalf("%q is no address: %v, %v", text, err, perr)
	}
	for w := range slices.Chunk(b, 4) {
		slices.Reverse(w)
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)).String()
}

// opened lists what a process's descriptors are.
func opened(t *testing.T, p *processtest.Process) (all []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			all = append(all, to)
		} else if !errors.Is(err, fs.ErrNotExist) { // closed meanwhile
			t.Fatal(err)
		}
	}
	return all
}

func socketInodes(t *testing.T, p *processtest.Process) (all []string) {
	t.Helper()
	for _, to := range opened(t, p) {
		if rest, ok := strings.CutPrefix(to, "socket:["); ok {
			all = append(all, strings.TrimSuffix(rest, "]"))
		}
	}
	return all
}

// descriptors are a process's, by what they are for.
type descriptors struct {
	bridges []socket // connections of requesters, devices and peers
	others  int      // neither those, nor to the hub, nor of the admin listener, nor pipes
	pipes   int      // ends
}

func (n *node) descriptors() (d descriptors) {
	n.w.t.Helper()
	byInode := map[string]socket{}
	for _, s := range sockets(n.w.t, n.Process) {
		byInode[s.inode] = s
	}
	for _, to := range opened(n.w.t, n.Process) {
		kind, rest, _ := strings.Cut(to, ":[")
		s, known := byInode[strings.TrimSuffix(rest, "]")]
		_, localPort, _ := net.SplitHostPort(s.local)
		_, remotePort, _ := net.SplitHostPort(s.remote)
		switch {
		case kind == "pipe":
			d.pipes++
		case kind != "socket" || s.listens:
			d.others++
		case known && (remotePort == hubPort || localPort == adminPort):
		case known:
			d.bridges = append(d.bridges, s)
		default:
			d.bridges = append(d.bridges, socket{local: "closing", inode: rest}) // not in the table any more
		}
	}
	return d
}

// warm notes what a new node has open.
func (n *node) warm() {
	n.w.t.Helper()
	until(n.w.t, n.space()+" has no connections", func() bool {
		n.baseline = n.descriptors()
		return len(n.baseline.bridges) == 0
	})
}

// clean waits until no descriptor is left of bridges, which takes a moment: ends say
// goodbye.
func (w *town) clean() {
	w.t.Helper()
	for _, n := range w.nodes {
		var d descriptors
		processtest.Until(w.t, 2*slack, "the descriptors of "+n.space()+" have gone", func() bool {
			d = n.descriptors()
			if ok := len(d.bridges) == 0 && d.others <= n.baseline.others; ok {
				return true
			}
			w.leak = fmt.Sprintf("%s has %d others where it had %d, and %v", n.space(), d.others, n.baseline.others, d.bridges)
			return false
		})
	}
	w.leak = ""
}

// noGoroutines ends all nodes with a dump and compares those with one of a node that
// never had a bridge: nothing may run that does not run there. It is the last thing
// that a test does with its nodes.
func (w *town) noGoroutines() {
	w.t.Helper()
	w.clean()
	w.reqFront.Kill() // they ask the nodes all the time
	w.devFront.Kill()
	var dumps [][]goroutine
	for _, n := range w.nodes {
		dumps = append(dumps, n.dump())
	}
	want := map[string]int{}
	var left []string
	for range 3 { // a new node that is ready may have a goroutine that has not got to where it waits
		fresh := &node{w: w, i: 1, env: w.nodes[0].env}
		fresh.start()
		fresh.waitReady()
		for ours, n := range count(fresh.dump()) {
			want[ours] = max(want[ours], n)
		}
		left = nil
		for i, d := range dumps {
			got := map[string]int{}
			for _, g := range d {
				if got[g.ours]++; g.ours != "" && got[g.ours] > want[g.ours] {
					left = append(left, fmt.Sprintf("a goroutine is left on node%d:\n%s", i+1, g.text))
				}
			}
		}
		if left == nil {
			return
		}
	}
	for _, text := range left {
		w.t.Error(text)
	}
}

// count is how many goroutines there are of each kind.
func count(all []goroutine) map[string]int {
	n := map[string]int{}
	for _, g := range all {
		n[g.ours]++
	}
	return n
}

// goroutine is one of a dump.
type goroutine struct {
	text string
	ours string // functions of ours in it, and what started it
}

var goroutineHead = regexp.MustCompile(`^goroutine \d+ .*\[.*\]:$`)

// dump ends the process and returns its goroutines.
func (n *node) dump() (all []goroutine) {
	n.w.t.Helper()
	in := false
	for _, text := range strings.Split(n.Dump(), "\n") {
		if goroutineHead.MatchString(text) {
			all = append(all, goroutine{})
			in = true
		}
		if in = in && text != ""; !in {
			continue
		}
		g := &all[len(all)-1]
		g.text += text + "\n"
		name, _, started := strings.Cut(text, " in goroutine ")
		if args := strings.LastIndexByte(text, '('); args > 0 && !started {
			name = text[:args]
		}
		if f := strings.TrimPrefix(name, "created by "); strings.HasPrefix(f, "websocketbridge/") || strings.HasPrefix(f, "main.") {
			g.ours += name + " "
		}
	}
	if len(all) == 0 {
		n.w.t.Errorf("%s has left no dump", n.space())
	}
	return all
}
