package settings_test

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/settings"
)

type hub struct {
	Host string `envconfig:"HOST" desc:"hub host name"`
	SAS  string `envconfig:"SAS" secret:"true"`
}

type Embedded struct {
	Level slog.Level `envconfig:"LOG_LEVEL" default:"info" example:"debug"`
}

type spec struct {
	Listen  string          `envconfig:"LISTEN" default:":8443" desc:"public listener" example:"0.0.0.0:443"`
	Drain   time.Duration   `envconfig:"DRAIN" default:"10m" desc:"for open bridges after SIGTERM" example:"10m"`
	Max     int             `envconfig:"MAX_BRIDGES" default:"1000"`
	Small   uint8           `envconfig:"SMALL"`
	Rate    float64         `envconfig:"RATE"`
	Early   bool            `envconfig:"EARLY"`
	Peers   []string        `envconfig:"PEERS" default:"a, b"`
	Waits   []time.Duration `envconfig:"WAITS"`
	Weights map[string]int  `envconfig:"WEIGHTS"`
	Targets settings.Pairs  `envconfig:"TARGETS" example:"ssh=127.0.0.1:22"`
	Addr    netip.Addr      `envconfig:"ADDR"`
	Key     string          `envconfig:"KEY" secret:"true" desc:"the key"`
	Public  string          `envconfig:"PUBLIC_URL" required:"true" desc:"where devices reach it" example:"wss://relay.example.com"`
	Hub     hub             `envconfig:"HUB"`
	Flat    struct {        // without a tag: adds nothing to the prefix
		CAFile string `envconfig:"CA_FILE"`
	}
	Embedded
}

// load loads a spec in an environment of exactly these variables of ours.
func load(t *testing.T, env ...string) (spec, error) {
	t.Helper()
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	before := os.Environ()
	var s spec
	err := settings.Load("RELAYTEST", &s)
	if !reflect.DeepEqual(os.Environ(), before) {
		t.Error("Load changed the environment")
	}
	return s, err
}

const public = "RELAYTEST_PUBLIC_URL=wss://r.example.com"

func TestDefaults(t *testing.T) {
	got, err := load(t, public)
	if err != nil {
		t.Fatal(err)
	}
	want := spec{Listen: ":8443", Drain: 10 * time.Minute, Max: 1000, Peers: []string{"a", "b"}, Public: "wss://r.example.com"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFieldsWithoutDefaultKeepTheirValue(t *testing.T) {
	t.Setenv("RELAYTEST_PUBLIC_URL", "x")
	s := spec{Early: true, Rate: 2.5, Max: 7}
	if err := settings.Load("RELAYTEST", &s); err != nil || !s.Early || s.Rate != 2.5 {
		t.Errorf("%+v, %v", s, err)
	}
	if s.Max != 1000 {
		t.Errorf("a default in the tag is the default: Max = %d", s.Max)
	}
}

// A main goes on to look for faults of its own, so what is right is filled.
func TestFaultyFieldsStay(t *testing.T) {
	got, err := load(t, public, "RELAYTEST_DRAIN=soon", "RELAYTEST_MAX_BRIDGES=7", "RELAYTEST_KEY_FILE=/nowhere")
	if err == nil {
		t.Fatal("no error")
	}
	want := spec{Listen: ":8443", Max: 7, Peers: []string{"a", "b"}, Public: "wss://r.example.com"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEveryType(t *testing.T) {
	got, err := load(t, public,
		"RELAYTEST_LISTEN=", "RELAYTEST_DRAIN=90s", "RELAYTEST_MAX_BRIDGES=-5", "RELAYTEST_SMALL=255", "RELAYTEST_RATE=1e3",
		"RELAYTEST_EARLY=true", "RELAYTEST_PEERS= x , y,z", "RELAYTEST_WAITS=1s,2m", "RELAYTEST_WEIGHTS=a:1,b:2",
		"RELAYTEST_TARGETS=ssh=127.0.0.1:22, web=[::1]:80 ,q=a=b", "RELAYTEST_ADDR=10.0.0.1", "RELAYTEST_KEY= s3cret ",
		"RELAYTEST_HUB_HOST=h", "RELAYTEST_HUB_SAS=sas", "RELAYTEST_CA_FILE=/ca", "RELAYTEST_LOG_LEVEL=WARN")
	if err != nil {
		t.Fatal(err)
	}
	want := spec{
		Listen: "", Drain: 90 * time.Second, Max: -5, Small: 255, Rate: 1000, Early: true, Peers: []string{"x", "y", "z"},
		Waits: []time.Duration{time.Second, 2 * time.Minute}, Weights: map[string]int{"a": 1, "b": 2},
		Targets: settings.Pairs{"ssh": "127.0.0.1:22", "web": "[::1]:80", "q": "a=b"}, Addr: netip.MustParseAddr("10.0.0.1"),
		Key: " s3cret ", Public: "wss://r.example.com", Hub: hub{"h", "sas"}, Embedded: Embedded{slog.LevelWarn},
	}
	want.Flat.CAFile = "/ca"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEmptyClears(t *testing.T) {
	got, err := load(t, public, "RELAYTEST_LISTEN=", "RELAYTEST_PEERS=", "RELAYTEST_TARGETS=", "RELAYTEST_WEIGHTS=")
	if err != nil || got.Listen != "" || len(got.Peers) != 0 || len(got.Targets) != 0 || len(got.Weights) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// faultsOf returns the faults by name and fails if the error is something else.
func faultsOf(t *testing.T, err error) map[string]string {
	t.Helper()
	var faults settings.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v is no Faults", err)
	}
	m := make(map[string]string)
	for _, f := range faults {
		if !strings.Contains(err.Error(), f.String()) {
			t.Errorf("%q is not in the error", f)
		}
		m[f.Name] = f.Problem
	}
	if len(m) != len(faults) {
		t.Errorf("a variable has two faults: %v", faults)
	}
	return m
}

func TestFaults(t *testing.T) {
	const p = "RELAYTEST_"
	for name, tt := range map[string]struct{ env, variable, want string }{
		"duration without unit": {"DRAIN=10", "DRAIN", `"10" is not a duration: a number with its unit, as 500ms, 90s, 10m or 12h; for example RELAYTEST_DRAIN=10m`},
		"empty duration":        {"DRAIN=", "DRAIN", `"" is not a duration`},
		"number":                {"MAX_BRIDGES=many", "MAX_BRIDGES", `"many" is not a whole number that fits 64 bits`},
		"fraction":              {"MAX_BRIDGES=1.5", "MAX_BRIDGES", `"1.5" is not a whole number`},
		"octal":                 {"MAX_BRIDGES=0100", "MAX_BRIDGES", `"0100" starts with 0, which would make it octal`},
		"too large":             {"SMALL=256", "SMALL", `"256" is not a whole number from 0 that fits 8 bits`},
		"negative":              {"SMALL=-1", "SMALL", `"-1" is not a whole number from 0`},
		"float":                 {"RATE=fast", "RATE", `"fast" is not a number`},
		"bool":                  {"EARLY=yes", "EARLY", `"yes" is neither true nor false`},
		"empty item":            {"PEERS=a,,b", "PEERS", `"a,,b" has an empty item`},
		"last item empty":       {"PEERS=a,", "PEERS", `"a," has an empty item`},
		"list of durations":     {"WAITS=1s,2", "WAITS", `"1s,2" is not a list with commas, in which every item is a duration`},
		"map":                   {"WEIGHTS=a:1:2", "WEIGHTS", `"a:1:2" is not a list as key:value,key:value`},
		"map value":             {"WEIGHTS=a:b", "WEIGHTS", `is not a list as key:value`},
		"pairs":                 {"TARGETS=ssh:22", "TARGETS", `"ssh:22" is wrong: is not name=value,name=value; for example RELAYTEST_TARGETS=ssh=127.0.0.1:22`},
		"pairs, twice":          {"TARGETS=a=1,a=2", "TARGETS", `has a twice`},
		"pairs, empty":          {"TARGETS=a=1,,b=2", "TARGETS", `has an empty item`},
		"own type":              {"LOG_LEVEL=loud", "LOG_LEVEL", `"loud" is wrong: `},
		"required, empty":       {"PUBLIC_URL=", "PUBLIC_URL", "is set, but empty; for example RELAYTEST_PUBLIC_URL=wss://relay.example.com"},
		"secret, empty":         {"KEY=", "KEY", "is set, but empty; unset it"},
		"not UTF-8":             {"LISTEN=\xff", "LISTEN", "is not valid UTF-8"},
		"long":                  {"EARLY=" + strings.Repeat("é", 5000), "EARLY", `é…" is neither true nor false`},
		"control characters":    {"EARLY=\x1b[2J\n", "EARLY", `"\x1b[2J\n" is neither`},
		"typing error":          {"LISTN=:1", "LISTN", "is unknown; did you mean RELAYTEST_LISTEN?"},
		"swapped letters":       {"MAX_BRIGDES=1", "MAX_BRIGDES", "did you mean RELAYTEST_MAX_BRIDGES?"},
		"lower case":            {"listen=:1", `"RELAYTEST_listen"`, "did you mean RELAYTEST_LISTEN?"},
		"nested":                {"HUBHOST=h", "HUBHOST", "did you mean RELAYTEST_HUB_HOST?"},
		"secret file misspelt":  {"KEYFILE=h", "KEYFILE", "did you mean RELAYTEST_KEY_FILE?"},
		"nothing like it":       {"ZZZZZZZZ=1", "ZZZZZZZZ", "is unknown"},
		"file of no secret":     {"LISTEN_FILE=/x", "LISTEN_FILE", "is unknown; RELAYTEST_LISTEN is no secret, so it has no _FILE form"},
		"a port":                {"PORT=8080", "PORT", "is unknown"},
		"no file":               {"KEY_FILE=/does/not/exist", "KEY_FILE", "/does/not/exist: no such file"},
		"a directory":           {"KEY_FILE=/", "KEY_FILE", "/: is a directory"},
		"no path":               {"KEY_FILE=", "KEY_FILE", "is set, but empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, public, p+tt.env)
			variable := p + tt.variable
			if tt.variable[0] == '"' {
				variable = tt.variable
			}
			got := faultsOf(t, err)
			if len(got) != 1 || !strings.Contains(got[variable], tt.want) {
				t.Errorf("got  %v\nwant %s: %s", got, variable, tt.want)
			}
			if len(err.Error()) > 300 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			if name == "nothing like it" && strings.Contains(err.Error(), "did you mean") {
				t.Error(err)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, "RELAYTEST_DRAIN=10", "RELAYTEST_EARLY=ja", "RELAYTEST_KEY=topsecret", "RELAYTEST_KEY_FILE=/x",
		"RELAYTEST_HUB_SAS_FILE=/does/not/exist", "RELAYTEST_LISTN=topsecret", "RELAYTEST_ALSO=topsecret")
	const want = `7 settings are wrong:
  RELAYTEST_DRAIN: "10" is not a duration: a number with its unit, as 500ms, 90s, 10m or 12h; for example RELAYTEST_DRAIN=10m
  RELAYTEST_EARLY: "ja" is neither true nor false
  RELAYTEST_KEY: is set, and RELAYTEST_KEY_FILE too; keep one
  RELAYTEST_PUBLIC_URL: is missing: where devices reach it; for example RELAYTEST_PUBLIC_URL=wss://relay.example.com
  RELAYTEST_HUB_SAS_FILE: open /does/not/exist: no such file or directory
  RELAYTEST_ALSO: is unknown
  RELAYTEST_LISTN: is unknown; did you mean RELAYTEST_LISTEN?`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestMissingSecret(t *testing.T) {
	var s struct {
		Key string `envconfig:"KEY" secret:"true" required:"true" desc:"the key"`
	}
	err := settings.Load("RELAYTEST", &s)
	const want = "RELAYTEST_KEY: is missing: the key; set it, or RELAYTEST_KEY_FILE to a file that holds it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSecretFile(t *testing.T) {
	for name, tt := range map[string]struct{ text, want, fault string }{
		"as it is":        {"s3cret", "s3cret", ""},
		"line end":        {"s3cret\n", "s3cret", ""},
		"CRLF":            {"s3cret\r\n", "s3cret", ""},
		"several lines":   {"one\ntwo\n\n", "one\ntwo", ""},
		"spaces are kept": {" s3cret ", " s3cret ", ""},
		"commas, quotes":  {"a,\"b`c=d:e", "a,\"b`c=d:e", ""},
		"empty":           {"", "", "is empty"},
		"only line ends":  {"\n\n", "", "is empty"},
		"huge":            {strings.Repeat("s3cret", 1<<18), "", "has more than 1048576 bytes"},
		"binary":          {"s3cret\xff", "", "is not valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := load(t, public, "RELAYTEST_KEY_FILE="+path)
			if tt.fault == "" {
				if err != nil || got.Key != tt.want {
					t.Errorf("%q, %v", got.Key, err)
				}
				return
			}
			if p := faultsOf(t, err)["RELAYTEST_KEY_FILE"]; !strings.Contains(p, tt.fault) || strings.Contains(p, "s3cret") {
				t.Errorf("%s, want %s", p, tt.fault)
			}
		})
	}
}

// TestForeignVariables: envconfig alone would take HOST for RELAYTEST_HUB_HOST,
// and KEY for RELAYTEST_KEY.
func TestForeignVariables(t *testing.T) {
	t.Setenv("HOST", "not ours")
	t.Setenv("KEY", "not ours")
	t.Setenv("LISTEN", "not ours")
	t.Setenv("RELAYTESTLISTEN", "not ours")
	t.Setenv("XRELAYTEST_LISTEN", "not ours")
	got, err := load(t, public)
	if err != nil || got.Hub.Host != "" || got.Key != "" || got.Listen != ":8443" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestServiceLinks(t *testing.T) {
	// As kubectl exec env shows them, for Services relaytest and relaytest-admin.
	links := map[string]string{
		"RELAYTEST_SERVICE_HOST":                  "10.0.0.11",
		"RELAYTEST_SERVICE_PORT":                  "443",
		"RELAYTEST_SERVICE_PORT_HTTPS":            "443",
		"RELAYTEST_SERVICE_PORT_MY_PORT":          "444",
		"RELAYTEST_PORT":                          "tcp://10.0.0.11:443",
		"RELAYTEST_PORT_443_TCP":                  "tcp://10.0.0.11:443",
		"RELAYTEST_PORT_443_TCP_PROTO":            "tcp",
		"RELAYTEST_PORT_443_TCP_PORT":             "443",
		"RELAYTEST_PORT_443_TCP_ADDR":             "10.0.0.11",
		"RELAYTEST_PORT_53_UDP":                   "udp://10.0.0.11:53",
		"RELAYTEST_ADMIN_SERVICE_HOST":            "10.0.0.12",
		"RELAYTEST_ADMIN_PORT":                    "tcp://10.0.0.12:9090",
		"RELAYTEST_ADMIN_PORT_9090_TCP_ADDR":      "10.0.0.12",
		"RELAYTEST_ADMIN_SERVICE_PORT_HTTP_ADMIN": "9090",
	}
	for k, v := range links {
		t.Setenv(k, v)
	}
	if _, err := load(t, public); err != nil {
		t.Error(err)
	}
	for name := range maps.Keys(links) {
		typ := reflect.StructOf([]reflect.StructField{{
			Name: "F", Type: reflect.TypeFor[string](),
			Tag: reflect.StructTag(`envconfig:"` + strings.TrimPrefix(name, "RELAYTEST_") + `"`),
		}})
		if err := settings.Load("RELAYTEST", reflect.New(typ).Interface()); err == nil || !strings.Contains(err.Error(), "Kubernetes") {
			t.Errorf("a spec may have %s: %v", name, err)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	type st = struct{ A string }
	for name, tt := range map[string]struct {
		spec any
		want string
	}{
		"no pointer": {spec{}, "no pointer to a struct"},
		"nil":        {(*spec)(nil), "no pointer to a struct"},
		"no struct":  {new(int), "no pointer to a struct"},
		"no tag":     {new(st), `A: envconfig tag ""`},
		"lower case": {new(struct {
			A string `envconfig:"a"`
		}), "is not upper case"},
		"unexported": {new(struct {
			a string `envconfig:"A"`
		}), "a: is not exported"},
		"twice": {new(struct {
			A, B string `envconfig:"A"`
		}), "RELAYTEST_A is there twice"},
		"twice, as file": {new(struct {
			A string `envconfig:"A" secret:"1"`
			B string `envconfig:"A_FILE"`
		}), "RELAYTEST_A_FILE is there twice"},
		"secret number": {new(struct {
			A int `envconfig:"A" secret:"true"`
		}), "a secret is a string"},
		"secret default": {new(struct {
			A string `envconfig:"A" secret:"true" default:"x"`
		}), "neither default nor example"},
		"required default": {new(struct {
			A string `envconfig:"A" required:"true" default:"x"`
		}), "is required and has a default"},
		"bad flag": {new(struct {
			A string `envconfig:"A" required:"yes"`
		}), "true or false"},
		"channel": {new(struct {
			A chan int `envconfig:"A"`
		}), "type chan int cannot be read"},
		"pointer": {new(struct {
			A *int `envconfig:"A"`
		}), "type *int cannot be read"},
		"list of lists": {new(struct {
			A [][]string `envconfig:"A"`
		}), "cannot be read"},
		"bad nested": {new(struct {
			A struct {
				B any `envconfig:"B"`
			} `envconfig:"A"`
		}), "B: type interface {} cannot be read"},
		"default is a fault": {new(struct {
			A int `envconfig:"A" default:"x"`
		}), `RELAYTEST_A: the default, "x" is not a whole number`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := settings.Load("RELAYTEST", tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	for _, prefix := range []string{"", "relay", "RELAY_", "R-L", "1"} {
		if err := settings.Load(prefix, new(struct{})); err == nil {
			t.Errorf("prefix %q is fine", prefix)
		}
	}
}

func TestUsage(t *testing.T) {
	var s struct {
		Listen string        `envconfig:"LISTEN" default:":8443" desc:"public listener"`
		Drain  time.Duration `envconfig:"DRAIN" default:"10m" desc:"for open bridges after SIGTERM"`
		Key    string        `envconfig:"KEY" required:"true" secret:"true" desc:"the key"`
		Hub    struct {
			Host string `envconfig:"HOST" desc:"hub host name" example:"h.azure-devices.net"`
		} `envconfig:"HUB"`
	}
	s.Key = "topsecret"
	t.Setenv("RELAYTEST_KEY", "topsecret")
	var b strings.Builder
	if err := settings.Usage("RELAYTEST", &s, &b); err != nil {
		t.Fatal(err)
	}
	const want = `NAME                DEFAULT     DESCRIPTION
RELAYTEST_LISTEN    :8443       public listener
RELAYTEST_DRAIN     10m         for open bridges after SIGTERM
RELAYTEST_KEY       (required)  the key (secret; or RELAYTEST_KEY_FILE)
RELAYTEST_HUB_HOST              hub host name (such as h.azure-devices.net)
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
	if err := settings.Usage("RELAYTEST", s, &b); err == nil {
		t.Error("a spec that is no pointer is fine")
	}
}
