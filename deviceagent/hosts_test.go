package deviceagent_test

import (
	"net/url"
	"strings"
	"testing"

	"websocketbridge/deviceagent"
)

func TestRelayHosts(t *testing.T) {
	for _, tt := range []struct {
		entry   string
		yes, no []string // hosts of a wss URL, with a port perhaps
	}{
		{"relay.example.com",
			[]string{"relay.example.com", "RELAY.Example.com", "relay.example.com:8443", "relay.example.com.", "relay.example.com:"},
			[]string{"example.com", "a.relay.example.com", "relay.example.com.evil.com", "relay.example.comx", "relay.example.com..", "evil.com#relay.example.com", "relay.example.com%2eevil.com"}},
		{"Relay.Example.COM.", []string{"relay.example.com"}, []string{"example.com"}},
		{"relay.example.com:8443", []string{"relay.example.com:8443", "Relay.example.com.:8443"}, []string{"relay.example.com", "relay.example.com:443", "relay.example.com:84430", "relay.example.com:08443"}},
		{"relay.example.com:443", []string{"relay.example.com", "relay.example.com:443"}, []string{"relay.example.com:80"}},
		{"*.example.com",
			[]string{"a.example.com", "a.b.EXAMPLE.com:1", "a.example.com."},
			[]string{"example.com", "evilexample.com", ".example.com", "a..example.com", "example.com.evil.com", "evil.com:1.example.com", "evil.com;.example.com", "evil.com\\.example.com",
				"%65vil.example.com.org", "evil.com%C3%A9.example.com", "127.0.0.1", "[::1%25.example.com]"}},
		{"*.example.com:8443", []string{"a.example.com:8443"}, []string{"a.example.com", "example.com:8443"}},
		{"*", []string{"anything", "127.0.0.1:1", "[::1]", "a..b"}, nil},
		{"*:8443", []string{"anything:8443"}, []string{"anything"}},
		{"10.0.0.1", []string{"10.0.0.1", "10.0.0.1:1", "[::ffff:10.0.0.1]"}, []string{"10.0.0.10", "010.0.0.1", "10.1", "167772161", "10.0.0.1."}},
		{"[fd00::1]", []string{"[fd00::1]", "[FD00:0::1]:1"}, []string{"[fd00::2]", "[fd00::1%25eth0]"}},
		{"fd00::1", []string{"[fd00::1]"}, nil},
		{"[fd00::1]:8443", []string{"[fd00::1]:8443"}, []string{"[fd00::1]"}},
		{"relay.example.com", nil, []string{ // what only looks so, to one reader or another
			"evil.com%00relay.example.com", "relay.example.com%00.evil.com", "relay.example.com%0d%0a.evil.com", "relay.example.com%20", "%72elay.example.com",
			"relay。example。com", "relay．example．com", "rela\u0443.example.com", "xn--relay-example.com", "ｒelay.example.com", "relay.example.com\u200b", "relay.\u00ad.example.com",
			"relay.example.com:@evil.com", "relay.example.com:443@evil.com", "relay.example.com\\@evil.com", "evil.com?relay.example.com", "evil.com/relay.example.com",
			"relay.example.com:443:443", "relay.example.com:+443", "relay.example.com,evil.com", "[relay.example.com]", "relay.example.com%23.evil.com",
		}},
		{"kelvin.example.com", []string{"KELVIN.example.com"}, []string{"\u212aelvin.example.com", "%E2%84%AAelvin.example.com"}},
		{"127.0.0.1", []string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]"}, []string{"127.1", "0x7f.0.0.1", "0177.0.0.1", "2130706433", "127.0.0.1.", "[::1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "localhost", "0", "[::]", "0.0.0.0"}},
		{"[::1]", []string{"[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]:443"}, []string{"[::1%25lo]", "127.0.0.1", "[::]", "[::1.]", "::1"}},
		{"localhost", []string{"localhost", "LOCALHOST:1"}, []string{"127.0.0.1"}},
	} {
		for _, want := range []bool{true, false} {
			hosts := tt.yes
			if !want {
				hosts = tt.no
			}
			for _, host := range hosts {
				if got, err := deviceagent.MatchRelay(tt.entry, "wss://"+host+"/bridge/accept"); err != nil || got != want {
					t.Errorf("%q allows %q: %t, %v; want %t", tt.entry, host, got, err, want)
				}
			}
		}
	}
	for scheme, port := range map[string]string{"ws": "80", "http": "80", "wss": "443", "https": "443"} {
		if ok, _ := deviceagent.MatchRelay("a:"+port, scheme+"://a/"); !ok {
			t.Errorf("%s has port %s by default", scheme, port)
		}
	}
}

func TestRelayHostFaults(t *testing.T) {
	for entry, want := range map[string]string{
		"":                        "has no host",
		":8443":                   "has no host",
		"relay:":                  "empty port",
		"relay:0":                 `port "0"`,
		"relay:https":             `port "https"`,
		"wss://relay.example.com": "is a URL",
		"relay.example.com/front": "is a URL",
		"10.0.0.0/8":              "is a URL",
		"user@relay":              "neither a name nor an address",
		"relay example":           "neither a name nor an address",
		"*example.com":            "may have a star only",
		"relay.*.com":             "may have a star only",
		"*.*":                     "may have a star only",
		"*.":                      "neither a name nor an address",
		"*.10":                    "neither a name nor an address",
		"127.1":                   "neither a name nor an address",
		"[fe80::1%eth0]":          "zone",
		"[relay]":                 "neither a name nor an address",
	} {
		if _, err := deviceagent.MatchRelay(entry, "wss://x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", entry, err, want)
		}
	}
}

// Whatever a name pattern lets through is a name, and ends as the pattern says.
func FuzzRelayHost(f *testing.F) {
	f.Add("*.example.com", "wss://a.example.com:1/x?y")
	f.Add("relay.example.com", "wss://u@relay.example.com")
	f.Add("*.example.com:443", "https://[::1%25.example.com]")
	f.Fuzz(func(t *testing.T, entry, raw string) {
		ok, err := deviceagent.MatchRelay(entry, raw)
		if err != nil || !ok {
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("%q allows %q, which is no URL", entry, raw)
		}
		host, _, _ := strings.Cut(strings.ToLower(entry), ":")
		if tail, starred := strings.CutPrefix(host, "*"); starred && tail != "" {
			got := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
			if tail = strings.TrimSuffix(tail, "."); !nameForm.MatchString(got) || numberForm.MatchString(got) || !strings.HasSuffix(got, tail) || len(got) <= len(tail) {
				t.Errorf("%q allows %q", entry, raw)
			}
		}
	})
}
