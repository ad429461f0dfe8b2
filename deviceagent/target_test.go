package deviceagent_test

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"websocketbridge/deviceagent"
)

func TestParseTargetsFaults(t *testing.T) {
	for entry, want := range map[string]string{
		"":                                  "neither NAME=tcp:HOST:PORT",
		"ssh":                               "neither NAME=tcp:HOST:PORT",
		"Echo":                              "neither NAME=tcp:HOST:PORT",
		"udp:10.0.0.1:53":                   "neither NAME=tcp:HOST:PORT",
		"=tcp:127.0.0.1:22":                 "has a name that is empty",
		"s h=tcp:127.0.0.1:22":              "has a name that has a space",
		"a,b=tcp:127.0.0.1:22":              "has a name that has a space, a comma",
		"a\x00b=echo:":                      "control character",
		"a\xff=echo:":                       "UTF-8",
		strings.Repeat("n", 129) + "=echo:": "129 bytes",
		"ssh=ftp:127.0.0.1:22":              `kind "ftp"`,
		"ssh=":                              `kind ""`,
		"ssh=tcp:":                          "needs a host and a port",
		"ssh=tcp:22":                        "needs a host and a port",
		"ssh=tcp::22":                       "needs a host and a port",
		"ssh=tcp:127.0.0.1":                 "needs a host and a port",
		"ssh=tcp:fd00::1:22":                "needs a host and a port",
		"ssh=tcp:127.0.0.1:":                `port ""`,
		"ssh=tcp:127.0.0.1:0":               `port "0"`,
		"ssh=tcp:127.0.0.1:65536":           `port "65536"`,
		"ssh=tcp:127.0.0.1:+22":             `port "+22"`,
		"ssh=tcp:127.0.0.1:ssh":             `port "ssh"`,
		"ssh=tcp:127.1:22":                  "neither a name nor an address",
		"ssh=tcp:a b:22":                    "neither a name nor an address",
		"ssh=tcp:*:22":                      "neither a name nor an address",
		"d=unix:":                           "needs a whole path",
		"d=unix:docker.sock":                "needs a whole path",
		"e=echo:loud":                       `"loud" behind echo:`,
		"tcp:":                              "needs hosts and ports",
		"tcp:22":                            "needs hosts and ports",
		"tcp::22":                           "needs hosts and ports",
		"tcp:10.0.0.1":                      "needs hosts and ports",
		"tcp:10.0.0.1:":                     `port ""`,
		"tcp:10.0.0.1:0":                    `port "0"`,
		"tcp:10.0.0.1:0-5":                  `port "0"`,
		"tcp:10.0.0.1:5-":                   `port ""`,
		"tcp:10.0.0.1:9-5":                  "empty range",
		"tcp:10.0.0.1:1-2-3":                `port "2-3"`,
		"tcp:10.0.0.1:80*":                  `port "80*"`,
		"tcp:10.0.0.0/33:80":                "network that is none",
		"tcp:10.0.0/24:80":                  "network that is none",
		"tcp:10.0.0.5/24:80":                "is 10.0.0.0/24 meant?",
		"tcp:[::ffff:10.0.0.0/120]:80":      "write it as IPv4",
		"tcp:[fe80::1%eth0]:80":             "zone",
		"tcp:fd00::1:22":                    "needs brackets",
		"tcp:[]:80":                         "neither a name nor an address",
		"tcp:[web]:80":                      "neither a name nor an address",
		"tcp: :80":                          "neither a name nor an address",
		"tcp:*.*:80":                        "may have a star only",
		"tcp:w*b:80":                        "may have a star only",
		"tcp:*plant.example:80":             "may have a star only",
		"tcp:*.:80":                         "neither a name nor an address",
		"tcp:.:80":                          "neither a name nor an address",
		"tcp:a..b:80":                       "neither a name nor an address",
		"tcp:user@web:80":                   "neither a name nor an address",
		"tcp:127.1:80":                      "neither a name nor an address",
		"tcp:0x7f000001:80":                 "neither a name nor an address",
		"tcp:010.0.0.1:80":                  "neither a name nor an address",
		"tcp:*.10:80":                       "neither a name nor an address",
	} {
		_, err := deviceagent.ParseTargets([]string{entry})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "target "+strconv.Quote(entry)) {
			t.Errorf("%q: got %v, want %q", entry, err, want)
		}
	}
	_, err := deviceagent.ParseTargets([]string{"x", "echo", "tcp:a:b", "ssh=tcp:127.0.0.1:22", "ssh=tcp:127.0.0.1:23"})
	if err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Errorf("three faults of five entries, got %v", err)
	}
}

func TestTargetsAdd(t *testing.T) {
	var targets deviceagent.Targets
	if _, ok := targets.Find("x"); ok {
		t.Error("the zero value allows something")
	}
	if err := targets.Add("x", deviceagent.Echo{}); err != nil {
		t.Fatal(err)
	}
	for name, add := range map[string]func() error{
		"twice":    func() error { return targets.Add("x", deviceagent.Echo{}) },
		"bad name": func() error { return targets.Add("a b", deviceagent.Echo{}) },
		"nil":      func() error { return targets.Add("y", nil) },
	} {
		if add() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := targets.Names(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("names %q", got)
	}
}

func TestFind(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []string
		find    map[string]string // what is asked for → what is dialled; "": refused
	}{
		{"names", []string{" ssh=tcp:127.0.0.1:22 ", "docker=unix:/run/docker.sock", "abstract=unix:@x", "echo", "mirror=echo:", "v6=tcp:[fe80::1%eth0]:022"}, map[string]string{
			"ssh": "tcp:127.0.0.1:22", "docker": "unix:/run/docker.sock", "abstract": "unix:@x", "echo": "echo", "mirror": "echo", "v6": "tcp:[fe80::1%eth0]:22",
			"": "", "SSH": "", "ssh ": "", "127.0.0.1:22": "", "/run/docker.sock": "", "unix:/run/docker.sock": "", "tcp:127.0.0.1:22": "", "default": "", "*": "",
		}},
		{"a name that looks like an address", []string{"10.0.0.1:22=tcp:127.0.0.1:2222", "tcp:10.0.0.1:22"}, map[string]string{
			"10.0.0.1:22": "tcp:127.0.0.1:2222",
		}},
		{"address", []string{"tcp:10.0.0.1:80"}, map[string]string{
			"10.0.0.1:80": "tcp:10.0.0.1:80", "10.0.0.1:080": "tcp:10.0.0.1:80", "[10.0.0.1]:80": "tcp:10.0.0.1:80",
			"[::ffff:10.0.0.1]:80": "tcp:[::ffff:10.0.0.1]:80", // the same host
			"10.0.0.1:81":          "", "10.0.0.1": "", "10.0.0.1:": "", "10.0.0.1:0": "", "10.0.0.1:http": "", "10.0.0.1:65616": "", "10.0.0.1:-80": "", "10.0.0.1:80:80": "",
			"10.0.0.2:80": "", "010.0.0.1:80": "", "10.1:80": "", "167772161:80": "", "0xa000001:80": "", "10.0.0.1.:80": "", ":80": "", "[::ffff:10.0.0.1%eth0]:80": "",
		}},
		{"mapped address", []string{"tcp:[::ffff:10.0.0.1]:80"}, map[string]string{"10.0.0.1:80": "tcp:10.0.0.1:80"}},
		{"network", []string{"tcp:192.168.1.0/24:8000-8099"}, map[string]string{
			"192.168.1.0:8000": "tcp:192.168.1.0:8000", "192.168.1.255:8099": "tcp:192.168.1.255:8099", "[::ffff:192.168.1.7]:8000": "tcp:[::ffff:192.168.1.7]:8000",
			"192.168.2.0:8000": "", "192.168.1.1:7999": "", "192.168.1.1:8100": "", "web:8000": "", "192.168.1.1.evil.example:8000": "",
		}},
		{"every IPv4 address", []string{"tcp:0.0.0.0/0:80"}, map[string]string{"1.2.3.4:80": "tcp:1.2.3.4:80", "[::1]:80": "", "localhost:80": ""}},
		{"every IPv6 address", []string{"tcp:[::/0]:80"}, map[string]string{
			"[::1]:80": "tcp:[::1]:80", "127.0.0.1:80": "", "[::ffff:127.0.0.1]:80": "", "[fe80::1%eth0]:80": "", "::1:80": "",
		}},
		{"IPv6", []string{"tcp:[FD00::1]:22", "tcp:fd00:1::/32:22"}, map[string]string{
			"[fd00::1]:22": "tcp:[fd00::1]:22", "[fd00:0:0::1]:22": "tcp:[fd00:0:0::1]:22", "[fd00:1:2::3]:22": "tcp:[fd00:1:2::3]:22",
			"fd00::1:22": "", "[fd00::1%1]:22": "", "[fd00::2]:22": "",
		}},
		{"host name", []string{"tcp:DB.plant.example.:5432"}, map[string]string{
			"db.plant.example:5432": "tcp:db.plant.example:5432", "DB.Plant.Example:5432": "tcp:DB.Plant.Example:5432", "db.plant.example.:5432": "tcp:db.plant.example.:5432",
			"db.plant.example..:5432": "", "evildb.plant.example:5432": "", "a.db.plant.example:5432": "", "10.0.0.1:5432": "", "[::1]:5432": "",
		}},
		{"suffix", []string{"tcp:*.plant.example:*"}, map[string]string{
			"web.plant.example:80": "tcp:web.plant.example:80", "a.b.PLANT.example:65535": "tcp:a.b.PLANT.example:65535",
			"plant.example:80": "", ".plant.example:80": "", "evilplant.example:80": "", "a..plant.example:80": "", "web.plant.example:0": "", "web.plant.example.evil:80": "",
			"127.0.0.1:80": "", "127.0.0.1%.plant.example:80": "", "[::1%.plant.example]:80": "", "[::ffff:127.0.0.1%x.plant.example]:80": "", "127.0.0.1/.plant.example:80": "",
			"u@web.plant.example:80": "", "evil\x00.plant.example:80": "", "é.plant.example:80": "",
		}},
		{"everything", []string{"tcp:*:80"}, map[string]string{
			"10.0.0.1:80": "tcp:10.0.0.1:80", "[::1]:80": "tcp:[::1]:80", "[fe80::1%eth0]:80": "tcp:[fe80::1%eth0]:80", "web:80": "tcp:web:80",
			":80": "", "10.0.0.1:81": "", "echo": "",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			targets, err := deviceagent.ParseTargets(tt.entries)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.find {
				got := ""
				if target, ok := targets.Find(name); ok {
					got = target.String()
				}
				if got != want {
					t.Errorf("%q is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// FuzzFind compares with a reader that was written another way: whatever is
// dialled must be what the pattern says, as the resolver will read it.
func FuzzFind(f *testing.F) {
	for _, s := range [][2]string{
		{"tcp:10.0.0.1:80", "10.0.0.1:80"}, {"tcp:10.0.0.0/8:1-90", "[::ffff:10.2.3.4]:80"}, {"tcp:*.a.example:80", "x.a.example.:80"},
		{"tcp:*:*", "[fe80::1%2]:1"}, {"tcp:[::/0]:5", "127.0.0.1:5"}, {"tcp:a.example:80", "A.example:080"}, {"n=tcp:b:1", "n"}, {"tcp:*.1:80", "127.1:80"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, entry, name string) {
		targets, err := deviceagent.ParseTargets([]string{entry})
		if err != nil {
			return
		}
		target, ok := targets.Find(name)
		if key, _, named := strings.Cut(strings.TrimSpace(entry), "="); named || key == "echo" {
			if ok != (name == key) {
				t.Errorf("%q finds %q: %t", entry, name, ok)
			}
			return
		}
		if want := reference(strings.TrimSpace(entry), name); ok != want {
			t.Errorf("%q finds %q: %t, the reference says %t", entry, name, ok, want)
		}
		if ok {
			host, port, err := net.SplitHostPort(strings.TrimPrefix(target.String(), "tcp:"))
			if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 || host == "" {
				t.Errorf("%q finds %q as %v", entry, name, target)
			}
		}
	})
}

// All hosts as patterns, against all hosts as names.
func TestFindReference(t *testing.T) {
	hosts := []string{
		"10.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "[::/0]", "[::1]", "[::ffff:10.0.0.1]", "[fd00::]", "fd00::/16", "127.0.0.1", "127.1", "0x7f.1", "010.0.0.1",
		"a.example", "A.example.", "b.a.example", "*.example", "*.a.example", "evila.example", ".example", "example", "*", "", "[fe80::1%a.example]", "127.0.0.1%a.example", "1.example", "a_b.example", "10.0.0.1.example", "[::1%.example]", "[a.example]",
	}
	found := 0
	for _, pattern := range hosts {
		targets, err := deviceagent.ParseTargets([]string{"tcp:" + pattern + ":80-90"})
		if err != nil {
			continue
		}
		for _, host := range hosts {
			for _, port := range []string{"80", "090", "79", "91", "0", "65616", "", "80:80"} {
				name := host + ":" + port
				_, ok := targets.Find(name)
				if want := reference("tcp:"+pattern+":80-90", name); ok != want {
					t.Errorf("%q finds %q: %t, the reference says %t", pattern, name, ok, want)
				}
				if ok {
					found++
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d were found", found)
	}
}

var (
	askedForm   = regexp.MustCompile(`^(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]+)$`)
	patternForm = regexp.MustCompile(`^tcp:(.+):(?:(\*)|([0-9]+)(?:-([0-9]+))?)$`)
	nameForm    = regexp.MustCompile(`^(?i:[a-z0-9_-]+\.)*(?i:[a-z0-9_-]+)\.?$`)
	numberForm  = regexp.MustCompile(`(?:^|\.)(?:[0-9]+|0[xX][^.]*)\.?$`)
)

// reference is Find for one pattern that ParseTargets has taken.
func reference(pattern, asked string) bool {
	a, p := askedForm.FindStringSubmatch(asked), patternForm.FindStringSubmatch(pattern)
	if a == nil || p == nil {
		return false
	}
	host := a[1] + a[2]
	port, err := strconv.Atoi(a[3])
	from, to := 1, 65535
	if p[2] == "" {
		from, _ = strconv.Atoi(p[3])
		if to = from; p[4] != "" {
			to, _ = strconv.Atoi(p[4])
		}
	}
	if err != nil || port < from || port > to || port > 65535 || port == 0 || host == "" {
		return false
	}
	want := p[1]
	if want == "*" {
		return true
	}
	if in := strings.TrimSuffix(strings.TrimPrefix(want, "["), "]"); strings.Contains(in, ":") {
		want = in
	}
	bare, _, zoned := strings.Cut(host, "%")
	if ip := net.ParseIP(bare); ip != nil && (!zoned || ip.To4() == nil || strings.Contains(bare, ":")) {
		if zoned {
			return false
		}
		if _, network, err := net.ParseCIDR(want); err == nil {
			return network.Contains(ip) && (ip.To4() != nil) == (network.IP.To4() != nil)
		}
		w, err := netip.ParseAddr(want)
		return err == nil && net.ParseIP(w.String()).Equal(ip)
	}
	if net.ParseIP(want) != nil || strings.Contains(want, "/") || !nameForm.MatchString(host) || numberForm.MatchString(host) || len(strings.TrimSuffix(host, ".")) > 253 {
		return false
	}
	host, want = strings.ToLower(strings.TrimSuffix(host, ".")), strings.ToLower(strings.TrimSuffix(want, "."))
	if tail, ok := strings.CutPrefix(want, "*"); ok {
		return len(host) > len(tail) && host[len(host)-len(tail):] == tail
	}
	return host == want
}
