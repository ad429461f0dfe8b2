package cluster_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/cluster"
)

func TestParsePeers(t *testing.T) {
	for item, want := range map[string]string{
		"10.1.2.3":                 "10.1.2.3:7443",
		" 10.1.2.3 ":               "10.1.2.3:7443",
		"10.1.2.3:1":               "10.1.2.3:1",
		"10.1.2.3:65535":           "10.1.2.3:65535",
		"10.1.2.3:007":             "10.1.2.3:7",
		"fd00::1":                  "[fd00::1]:7443",
		"FD00:0:0::1":              "[fd00::1]:7443",
		"[fd00::1]":                "[fd00::1]:7443",
		"[fd00::1]:1":              "[fd00::1]:1",
		"::ffff:10.0.0.1":          "10.0.0.1:7443",
		"10.1.2.3/16":              "10.1.0.0/16:7443",
		"10.1.2.3/16:1":            "10.1.0.0/16:1",
		"10.1.2.3/32":              "10.1.2.3/32:7443",
		"fd00::/64":                "[fd00::/64]:7443",
		"[fd00::1/64]:1":           "[fd00::/64]:1",
		"::ffff:10.1.0.0/112":      "10.1.0.0/16:7443",
		"relay-nodes.default.svc":  "relay-nodes.default.svc:7443",
		"Relay-Nodes.default.svc.": "relay-nodes.default.svc:7443",
		"relay_nodes:1":            "relay_nodes:1",
		"a":                        "a:7443",
		"4relay.1":                 "4relay.1:7443",
		strings.Repeat("a", 63):    strings.Repeat("a", 63) + ":7443",
	} {
		p, err := cluster.ParsePeers([]string{item}, 7443)
		if err != nil {
			t.Errorf("%q: %v", item, err)
		} else if got := p.All(); len(got) != 1 || got[0] != want {
			t.Errorf("%q is %q, not %s", item, got, want)
		}
	}
}

var badPeers = map[string]string{ // and a word of the error
	"":                               "is not an address",
	" ":                              "is not an address",
	":7443":                          "is not an address",
	"10.1.2":                         "is not an address",
	"10.1.2.3.4":                     "is not an address",
	"010.1.2.3":                      "is not an address",
	"10.1.2.256":                     "is not an address",
	"10.0.0.0/33":                    "is not an address",
	"10.0.0.0/":                      "is not an address",
	"[10.1.2.3":                      "is not an address",
	"10.1.2.3]":                      "is not an address",
	"[[fd00::1]]":                    "is not an address",
	"fd00::1::2":                     "is not an address",
	"fd00::%eth0/64":                 "zone",
	"http://relay":                   "ports are 1 to 65535",
	"relay/":                         "is not an address",
	"user@relay":                     "is not an address",
	"relay nodes":                    "is not an address",
	"-relay":                         "is not an address",
	"relay-.svc":                     "is not an address",
	"relay..svc":                     "is not an address",
	".":                              "is not an address",
	"*.relay":                        "is not an address",
	"relay\u017f":                    "is not an address",
	strings.Repeat("a", 64):          "is not an address",
	strings.Repeat("a.", 126) + "aa": "is not an address", // 254 bytes
	"fe80::1%eth0":                   "zone",
	"0.0.0.0":                        "every address",
	"::":                             "every address",
	"::ffff:0.0.0.0":                 "every address",
	"0.0.0.0/0":                      "every address",
	"::/0":                           "every address",
	"::ffff:0:0/96":                  "every address",
	"224.0.0.1":                      "multicast",
	"ff02::1":                        "multicast",
	"10.1.2.3:0":                     "ports are 1 to 65535",
	"10.1.2.3:65536":                 "ports are 1 to 65535",
	"10.1.2.3:-1":                    "ports are 1 to 65535",
	"10.1.2.3:":                      "ports are 1 to 65535",
	"relay:http":                     "ports are 1 to 65535",
	"10.1.0.0/16:0":                  "ports are 1 to 65535",
}

func TestParsePeersFaults(t *testing.T) {
	var all []string
	for item, want := range badPeers {
		p, err := cluster.ParsePeers([]string{item}, 7443)
		if err == nil {
			t.Errorf("%q is %q", item, p.All())
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", item, err, want)
		}
		all = append(all, item)
	}
	p, err := cluster.ParsePeers(append(all, "10.0.0.1"), 7443)
	if p != nil || err == nil || strings.Count(err.Error(), "\n")+1 != len(all) {
		t.Errorf("not every fault at once: %v", err)
	}
	if _, err := cluster.ParsePeers(nil, 7443); err == nil || err.Error() != "there is none" {
		t.Errorf("no peer: %v", err)
	}
}

// A dns answers for names, and counts.
type dns struct {
	addrs map[string][]netip.Addr
	err   error         // for all
	lasts time.Duration // unless the asker leaves before
	asked []string
}

func (d *dns) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	d.asked = append(d.asked, host)
	select {
	case <-time.After(d.lasts):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.err != nil {
		return nil, d.err
	}
	if d.addrs[host] == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return d.addrs[host], nil
}

func addrs(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func TestCheck(t *testing.T) {
	d := &dns{addrs: map[string][]netip.Addr{
		"nodes.svc": addrs("10.9.0.1", "::ffff:10.9.0.2", "fe80::9%eth0"),
		"other.svc": addrs("10.9.0.3"),
		"evil.org":  addrs("10.9.9.9"),
	}}
	n := node(t, func(c *cluster.Config) {
		c.Peers = parsePeers(t, "10.0.0.1", "10.0.0.2:1", "fd00::1", "10.1.0.0/16", "fd01::/64", "0.0.0.0/8", "Nodes.svc", "other.svc:1")
		c.Lookup = d.lookup
	})
	for _, owner := range []string{
		"10.0.0.1:7443", "10.0.0.2:1", "[fd00::1]:7443", "10.1.0.0:7443", "10.1.255.255:7443", "[fd01::ffff]:7443",
		"10.9.0.1:7443", "10.9.0.2:7443", "[fe80::9]:7443", "10.9.0.3:1", "nodes.svc:7443", "other.svc:1",
	} {
		if err := n.Check(t.Context(), owner); err != nil {
			t.Errorf("%s: %v", owner, err)
		}
	}
	d.asked = nil
	for _, owner := range []string{
		"", ":", ":7443", "10.0.0.1", "10.0.0.1:", "10.0.0.1:1", "10.0.0.2:7443", "10.0.0.3:7443", "10.0.0.1:07443", "10.0.0.1:+7443", "10.0.0.1:7443 ",
		"10.0.0.1:72979", "010.0.0.1:7443", "10.0.1:7443", "167772161:7443", "0x0a.0.0.1:7443", "[10.0.0.1]:7443", "[::ffff:10.0.0.1]:7443",
		"[::ffff:a00:1]:7443", "fd00::1:7443", "[FD00::1]:7443", "[fd00:0::1]:7443", "[fd00::1%eth0]:7443", "[fd01::1%1]:7443", "10.2.0.1:7443",
		"10.1.0.1:1", "[fd01:0:0:1::]:7443", "0.0.0.0:7443", "0.0.0.1:1", "[::]:7443", "10.9.0.3:7443", "10.9.0.1:1", "10.9.9.9:7443",
		"NODES.svc:7443", "node\u017f.svc:7443", "nodes.svc.:7443", "[nodes.svc]:7443", "nodes.svc:1", "evil.org:7443", "x.nodes.svc:7443",
		"user@10.0.0.1:7443", "10.0.0.1:7443/", "http://10.0.0.1:7443", "10.0.0.1:7443\r\nHost: x", strings.Repeat("a", 10000) + ":7443",
	} {
		if err := n.Check(t.Context(), owner); !errors.Is(err, cluster.ErrNotPeer) {
			t.Errorf("%.80q: %v", owner, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%.80q: the error has %d bytes", owner, len(err.Error()))
		}
	}
	// A token must not have us ask for a stranger's name: the question itself tells them.
	for _, host := range d.asked {
		if host != "nodes.svc" && host != "other.svc" {
			t.Errorf("asked DNS for %s", host)
		}
	}
}

func TestCheckAsksDNSSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dns{addrs: map[string][]netip.Addr{"nodes": addrs("10.0.0.1")}}
		n := node(t, func(c *cluster.Config) { c.Peers, c.Lookup = parsePeers(t, "nodes"), d.lookup })
		check := func(owner string, is error, questions int) {
			t.Helper()
			d.asked = nil
			if err := n.Check(t.Context(), owner+":7443"); !errors.Is(err, is) {
				t.Errorf("%s: %v", owner, err)
			}
			if len(d.asked) != questions {
				t.Errorf("%s: %d questions, not %d", owner, len(d.asked), questions)
			}
		}
		check("10.0.0.1", nil, 1)
		check("10.0.0.1", nil, 0)
		check("10.0.0.2", cluster.ErrNotPeer, 0) // one that is too new has to come again
		time.Sleep(cluster.NameLeast - 1)
		check("10.0.0.2", cluster.ErrNotPeer, 0)
		time.Sleep(time.Nanosecond)
		d.addrs["nodes"] = addrs("10.0.0.1", "10.0.0.2")
		check("10.0.0.2", nil, 1)
		time.Sleep(cluster.NameLife - 1)
		check("10.0.0.1", nil, 0)
		time.Sleep(time.Nanosecond)
		d.addrs["nodes"] = addrs("10.0.0.2")
		check("10.0.0.1", cluster.ErrNotPeer, 1)
		time.Sleep(cluster.NameLife)

		d.err = errors.New("server misbehaving")
		check("10.0.0.2", nil, 1) // the last answer stays
		check("10.0.0.3", d.err, 0)
		time.Sleep(cluster.NameLeast)
		check("10.0.0.2", nil, 1)
		d.err = nil
		delete(d.addrs, "nodes")
		time.Sleep(cluster.NameLeast)
		check("10.0.0.2", cluster.ErrNotPeer, 1) // not found is an answer
	})
}

// DNS that says nothing must leave time to dial whom the last answer had, and ends with
// whoever asks.
func TestCheckSilentDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dns{addrs: map[string][]netip.Addr{"nodes": addrs("10.0.0.1")}}
		n := node(t, func(c *cluster.Config) { c.Peers, c.Lookup = parsePeers(t, "nodes"), d.lookup })
		check := func(owner string, patience, want time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			err := n.Check(ctx, owner+":7443")
			if took := time.Since(began); took != want {
				t.Errorf("%s took %v, not %v", owner, took, want)
			}
			return err
		}
		if err := check("10.0.0.1", time.Second, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(cluster.NameLife)
		d.lasts = time.Hour
		if err := check("10.0.0.1", 100*time.Millisecond, 100*time.Millisecond); err != nil { // of no patience
			t.Error(err)
		}
		done := make(chan error, 2)
		go func() { done <- check("10.0.0.1", 3*time.Second, 1500*time.Millisecond) }()
		synctest.Wait()
		go func() { done <- check("10.0.0.1", time.Second, time.Second) }() // behind the first
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waits for another's question: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := check("10.0.0.1", time.Second, 0); err != nil {
			t.Error(err)
		}
		if err := check("10.0.0.2", time.Second, 0); err == nil || errors.Is(err, cluster.ErrNotPeer) || !strings.Contains(err.Error(), "no answer of DNS within 1.5s") {
			t.Errorf("one that may be a peer: %v", err)
		}
	})
}

func TestList(t *testing.T) {
	broken := errors.New("server misbehaving")
	for _, c := range []struct {
		name, own string
		peers     []string
		err       error
		want      string
		complete  bool
	}{
		{"by address", "10.0.0.1:7443", []string{"10.0.0.2", "10.0.0.1", "10.0.0.2", "10.0.0.1:1"}, nil, "10.0.0.1:1 10.0.0.2:7443", true},
		{"by name", "10.9.0.1:7443", []string{"nodes", "10.9.0.2"}, nil, "10.9.0.2:7443", true},
		{"own address written oddly", "[::ffff:10.9.0.1]:07443", []string{"nodes"}, nil, "10.9.0.2:7443", true},
		{"nobody there", "10.9.0.1:7443", []string{"none"}, nil, "", true},
		{"range", "10.0.0.1:7443", []string{"10.0.0.0/24", "10.9.0.2"}, nil, "10.9.0.2:7443", false},
		{"no DNS", "10.0.0.1:7443", []string{"nodes", "10.9.0.2"}, broken, "10.9.0.2:7443", false},
		{"StatefulSet", "Node-1:7443", []string{"node-1", "node-2"}, nil, "10.9.0.2:7443", true},
		{"own name in another", "node-1:7443", []string{"nodes"}, nil, "10.9.0.2:7443", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &dns{err: c.err, addrs: map[string][]netip.Addr{
				"nodes": addrs("10.9.0.2", "10.9.0.1"), "node-1": addrs("10.9.0.1"), "node-2": addrs("10.9.0.2"),
			}}
			var book logBook
			n := node(t, func(cfg *cluster.Config) {
				cfg.Address, cfg.Peers, cfg.Lookup, cfg.Logger = c.own, parsePeers(t, c.peers...), d.lookup, book.logger()
			})
			got, complete := n.List(t.Context())
			if strings.Join(got, " ") != c.want || complete != c.complete {
				t.Errorf("%q, complete %t; want %s, %t", got, complete, c.want, c.complete)
			}
			if (c.err != nil) != strings.Contains(book.String(), "peers cannot be looked up") {
				t.Errorf("log: %s", book.String())
			}
			for _, peer := range got {
				if err := n.Check(t.Context(), peer); err != nil {
					t.Errorf("listed, and may not be dialled: %v", err)
				}
			}
		})
	}
}

func TestCheckAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1:7443": "10.0.0.1:7443", "[fd00::1]:1": "[fd00::1]:1", "[::ffff:10.0.0.1]:07443": "10.0.0.1:7443", "Node-1.svc.:7443": "node-1.svc:7443",
	} {
		if err := cluster.CheckAddress(addr); err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		n := node(t, func(c *cluster.Config) { c.Address, c.Peers = addr, parsePeers(t, strings.ToUpper(want)) })
		if n.Address() != want {
			t.Errorf("%s is %s, not %s", addr, n.Address(), want)
		}
		if err := n.Check(t.Context(), n.Address()); err != nil { // as a peer with the same list would
			t.Error(err)
		}
	}
	for _, addr := range []string{
		"", ":", ":7443", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "0.0.0.0:7443", "[::]:7443", "[::ffff:0.0.0.0]:7443", "[fe80::1%eth0]:7443",
		"010.0.0.1:7443", "a b:7443", "[a:7443", "224.0.0.1:7443", strings.Repeat("a.", 125) + "aa:7443",
	} {
		if err := cluster.CheckAddress(addr); err == nil {
			t.Errorf("%q passes", addr)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := cluster.New(cluster.Config{Address: "x", DialTimeout: time.Minute})
	for _, want := range []string{"Address", "Peers", "Keys", "DialTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want+": ") {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func FuzzParsePeers(f *testing.F) {
	for item := range badPeers {
		f.Add(item)
	}
	f.Add("10.1.2.3:1,10.0.0.0/8,[fd00::/64]:7,nodes.svc.")
	f.Fuzz(func(t *testing.T, list string) {
		p, err := cluster.ParsePeers(strings.Split(list, ","), 7443)
		if err != nil {
			return
		}
		// What it holds reads as the same.
		again, err := cluster.ParsePeers(p.All(), 1)
		if err != nil || !slices.Equal(p.All(), again.All()) {
			t.Fatalf("%q is %q, which is %v, %v", list, p.All(), again, err)
		}
	})
}

// FuzzOwner: nothing panics, and who may be dialled is written in the one way that is
// listed, or in a range, or in DNS.
func FuzzOwner(f *testing.F) {
	for _, s := range []string{"10.0.0.1:7443", "[fd00::1]:7443", "10.1.2.3:7443", "10.9.0.1:7443", "nodes.svc:7443", "node\u017f.svc:7443", "[10.0.0.1]:7443", "[fe80::1%a]:1", ":"} {
		f.Add(s)
	}
	d := &dns{addrs: map[string][]netip.Addr{"nodes.svc": addrs("10.9.0.1")}}
	f.Fuzz(func(t *testing.T, owner string) {
		n := node(t, func(c *cluster.Config) {
			c.Peers, c.Lookup = parsePeers(t, "10.0.0.1", "fd00::1", "10.1.0.0/16", "nodes.svc"), d.lookup
		})
		if err := n.Check(t.Context(), owner); err != nil {
			if !errors.Is(err, cluster.ErrNotPeer) {
				t.Fatal(err)
			}
			return
		}
		switch owner {
		case "10.0.0.1:7443", "[fd00::1]:7443", "10.9.0.1:7443", "nodes.svc:7443":
			return
		}
		ap, err := netip.ParseAddrPort(owner)
		if err != nil || ap.String() != owner || ap.Port() != 7443 || !netip.MustParsePrefix("10.1.0.0/16").Contains(ap.Addr()) {
			t.Fatalf("%q may be dialled", owner)
		}
	})
}
