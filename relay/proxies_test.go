package relay_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/signaler"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var someProxies = prefixes("10.0.0.0/8", "192.0.2.7/32", "2001:db8:ffff::/48", "fe80::/10")

func TestClientAddr(t *testing.T) {
	for _, tt := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"no header", "10.1.1.1:4711", nil, "10.1.1.1"},
		{"one proxy", "10.1.1.1:4711", []string{"198.51.100.9"}, "198.51.100.9"},
		{"a stranger claims one", "203.0.113.5:4711", []string{"198.51.100.9"}, "203.0.113.5"},
		{"a stranger claims to be a proxy", "203.0.113.5:4711", []string{"198.51.100.9, 10.1.1.1"}, "203.0.113.5"},
		{"what the client claims itself", "10.1.1.1:4711", []string{"6.6.6.6, 198.51.100.9"}, "198.51.100.9"},
		{"three proxies", "10.1.1.1:4711", []string{"6.6.6.6, 198.51.100.9, 192.0.2.7,10.2.2.2"}, "198.51.100.9"},
		{"several lines are one list", "10.1.1.1:4711", []string{"6.6.6.6", "198.51.100.9 ", "\t10.2.2.2, 10.3.3.3"}, "198.51.100.9"},
		{"proxies only", "10.1.1.1:4711", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"IPv4 with port", "10.1.1.1:4711", []string{"198.51.100.9:80, 10.2.2.2:65535"}, "198.51.100.9"},
		{"IPv6", "10.1.1.1:4711", []string{"2001:db8::9, 2001:db8:ffff::1"}, "2001:db8::9"},
		{"IPv6 in brackets", "[2001:db8:ffff::2]:4711", []string{"[2001:db8::9], [2001:db8:ffff::1]"}, "2001:db8::9"},
		{"IPv6 with port", "[2001:db8:ffff::2]:4711", []string{"[2001:DB8:0::9]:443"}, "2001:db8::9"},
		{"IPv4 in IPv6", "[::ffff:10.1.1.1]:4711", []string{"::ffff:198.51.100.9, [::ffff:10.2.2.2]:443"}, "198.51.100.9"},
		{"a proxy on the link", "[fe80::1%eth0]:4711", []string{"198.51.100.9"}, "198.51.100.9"},
		{"a stranger on the link", "[fec0::1%eth0]:4711", []string{"198.51.100.9"}, "fec0::1%eth0"},
		{"empty items", "10.1.1.1:4711", []string{"6.6.6.6", "", ",198.51.100.9, ,", " "}, "198.51.100.9"},
		{"a name", "10.1.1.1:4711", []string{"198.51.100.9, unknown"}, "10.1.1.1"},
		{"junk behind a proxy", "10.1.1.1:4711", []string{"198.51.100.9, _hidden, 10.2.2.2"}, "10.2.2.2"},
		{"a port that is none", "10.1.1.1:4711", []string{"198.51.100.9:99999"}, "10.1.1.1"},
		{"a zone", "10.1.1.1:4711", []string{"fe80::1%msg=forged"}, "10.1.1.1"},
		{"a zone on IPv4", "10.1.1.1:4711", []string{"::ffff:198.51.100.9%x"}, "10.1.1.1"},
		{"half a bracket", "10.1.1.1:4711", []string{"[2001:db8::9"}, "10.1.1.1"},
		{"IPv4 in brackets", "10.1.1.1:4711", []string{"[198.51.100.9]"}, "10.1.1.1"},
		{"quotes", "10.1.1.1:4711", []string{`"198.51.100.9"`}, "10.1.1.1"},
		{"no address at all", "pipe", []string{"198.51.100.9"}, "pipe"},
		{"a unix socket's", "@", []string{"198.51.100.9"}, "@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := relay.ClientAddr(tt.remote, tt.forwarded, someProxies); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := relay.ClientAddr(tt.remote, tt.forwarded, nil); got != relay.ClientAddr(tt.remote, nil, nil) {
				t.Errorf("got %q although nobody is trusted", got)
			}
		})
	}
}

func TestTrusts(t *testing.T) {
	for _, tt := range []struct {
		prefix, addr string
		want         bool
	}{
		{"10.0.0.0/8", "10.255.0.1", true},
		{"10.0.0.7/8", "10.1.1.1", true},
		{"10.0.0.0/8", "::ffff:10.1.1.1", true},
		{"::ffff:10.0.0.0/104", "10.1.1.1", true},
		{"::ffff:10.0.0.0/104", "::ffff:10.1.1.1", true},
		{"::ffff:10.0.0.0/104", "11.1.1.1", false},
		{"10.0.0.0/8", "::10.1.1.1", false},
		{"0.0.0.0/0", "198.51.100.9", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "198.51.100.9", false},
		{"fe80::/10", "fe80::1%eth0", true},
	} {
		c := relay.Config{TrustedProxies: prefixes(tt.prefix)}
		if got := c.Trusts(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s in %s: got %v", tt.addr, tt.prefix, got)
		}
	}
	if (relay.Config{TrustedProxies: prefixes("0.0.0.0/0", "::/0")}).Trusts(netip.Addr{}) {
		t.Error("no address is trusted")
	}
}

// Whatever the header says, the result is the peer or an address that stands in
// it, and a peer that is no proxy is never overruled.
func FuzzClientAddr(f *testing.F) {
	f.Add("10.1.1.1:4711", "6.6.6.6, 198.51.100.9, 10.2.2.2", "[::ffff:10.3.3.3]:1,,2001:db8:ffff::1")
	f.Add("[fe80::1%eth0]:1", "unknown", "[2001:db8::9]:443")
	f.Add("203.0.113.5:1", "[", "]:,%")
	f.Add("pipe", "1.2.3.4", "")
	f.Add("0::%[", "0", "0") // a zone can be any text
	f.Fuzz(func(t *testing.T, remote, first, second string) {
		got := relay.ClientAddr(remote, []string{first, second}, someProxies)
		peer, err := netip.ParseAddrPort(remote)
		if err != nil {
			bare := remote
			if inner, ok := strings.CutPrefix(remote, "["); ok {
				bare = strings.TrimSuffix(inner, "]")
			}
			if addr, aerr := netip.ParseAddr(bare); aerr != nil && got != remote {
				t.Fatalf("%q became %q", remote, got)
			} else if aerr != nil {
				return
			} else {
				peer = netip.AddrPortFrom(addr, 0)
			}
		}
		itself := peer.Addr().Unmap().String()
		if got == itself || got == remote {
			return
		}
		addr, err := netip.ParseAddr(got)
		if err != nil || addr.Zone() != "" || addr.Is4In6() {
			t.Fatalf("%q is no plain address", got)
		}
		if !(relay.Config{TrustedProxies: someProxies}).Trusts(peer.Addr()) {
			t.Fatalf("%q is no proxy, and yet %q", remote, got)
		}
		if !slices.ContainsFunc(strings.Split(first+","+second, ","), func(item string) bool {
			item = strings.Trim(item, " \t")
			ap, err := netip.ParseAddrPort(item)
			if err == nil {
				return ap.Addr().Unmap() == addr
			}
			a, err := netip.ParseAddr(strings.Trim(item, "[]"))
			return err == nil && a.Unmap() == addr
		}) {
			t.Fatalf("%q is not in %q, %q", got, first, second)
		}
	})
}

// What the node makes of both headers: the address in its log, the host that a
// page may be from.
func TestForwardedRequests(t *testing.T) {
	var log strings.Builder // requests come one after the other, and are refused before they return
	srv, err := relay.New(relay.Config{
		PublicURL: "wss://relay.example.com", Auth: auth.AllowAll{}, Keys: mustRing(t), TrustedProxies: someProxies,
		Signaler: signalFunc(func(context.Context, *signaler.Signal) error { return signaler.ErrDeviceNotFound }),
		Logger:   slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, remote string
		header             http.Header
		status             int
		logs               string
	}{
		{"from a proxy", "connect?deviceId=d", "10.1.1.1:1", http.Header{"X-Forwarded-For": {"198.51.100.9"}}, 404, `msg="bridge refused" .* from=198.51.100.9 `},
		{"from a stranger", "connect?deviceId=d", "203.0.113.5:1", http.Header{"X-Forwarded-For": {"198.51.100.9"}}, 404, `from=203.0.113.5 `},
		{"a device's proxy", "accept?bridgeToken=x", "10.1.1.1:1", http.Header{"X-Forwarded-For": {"198.51.100.9"}}, 400, `msg="device refused" .* from=198.51.100.9 `},
		{"a device itself", "accept?bridgeToken=x", "203.0.113.5:1", http.Header{"X-Forwarded-For": {"198.51.100.9"}}, 400, `from=203.0.113.5 `},
		{"the proxy's host", "connect?deviceId=d", "10.1.1.1:1", http.Header{"X-Forwarded-Host": {"Site.example.com"}, "Origin": {"https://site.example.com"}}, 404, ""},
		{"the first proxy's host", "connect?deviceId=d", "10.1.1.1:1", http.Header{"X-Forwarded-Host": {"site.example.com, inner:8080", "innermost"}, "Origin": {"https://site.example.com"}}, 404, ""},
		{"another host", "connect?deviceId=d", "10.1.1.1:1", http.Header{"X-Forwarded-Host": {"site.example.com"}, "Origin": {"https://evil.example.com"}}, 403, ""},
		{"a stranger's host", "connect?deviceId=d", "203.0.113.5:1", http.Header{"X-Forwarded-Host": {"site.example.com"}, "Origin": {"https://site.example.com"}}, 403, ""},
		{"no host, no origin", "connect?deviceId=d", "10.1.1.1:1", http.Header{"X-Forwarded-Host": {"", ","}, "Origin": {"null"}}, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log.Reset()
			r := httptest.NewRequest("GET", "/bridge/"+tt.path, nil)
			r.RemoteAddr = tt.remote
			for name, value := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
			} {
				r.Header.Set(name, value)
			}
			for name, values := range tt.header {
				r.Header[name] = values
			}
			w := httptest.NewRecorder()
			srv.Handler().ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if !regexp.MustCompile(tt.logs).MatchString(log.String()) {
				t.Errorf("no %q in %s", tt.logs, log.String())
			}
		})
	}
}
