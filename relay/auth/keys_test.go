package auth_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/relay/auth"
)

// Keys of the tests, and a file with all of them. The hashes are golden: a
// file that somebody has today must work with every later version.
const (
	opsKey    = "wsb_opsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw"
	ciKey     = "wsb_ciBBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwx"
	oldKey    = "wsb_oldCECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwy"
	soonKey   = "wsb_soonDCAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwz"
	legacyKey = "wsb_legacyAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw0"
	wrongKey  = "wsb_wrongCAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw5"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func goldenText(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/keys")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func golden(t testing.TB) *auth.Keys {
	t.Helper()
	k, err := auth.ParseKeys(goldenText(t))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "/bridge/connect?deviceId=pump-7", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestAuthenticate(t *testing.T) {
	keys := golden(t)
	const x, a = "X-Api-Key", "Authorization"
	for name, tt := range map[string]struct {
		headers []string
		want    string // the principal
		err     error
	}{
		"X-Api-Key":               {[]string{x, opsKey}, "ops", nil},
		"Bearer":                  {[]string{a, "Bearer " + ciKey}, "ci@example.com", nil},
		"bearer, lower case":      {[]string{a, "bearer " + ciKey}, "ci@example.com", nil},
		"Bearer, two spaces":      {[]string{a, "Bearer  " + ciKey}, "ci@example.com", nil},
		"last line":               {[]string{x, legacyKey}, "legacy", nil},
		"both, same":              {[]string{x, opsKey, a, "Bearer " + opsKey}, "ops", nil},
		"beside Basic":            {[]string{a, "Basic b3BzOm9wcw==", x, opsKey}, "ops", nil},
		"none":                    {nil, "", auth.ErrNoCredentials},
		"only Basic":              {[]string{a, "Basic b3BzOm9wcw=="}, "", auth.ErrNoCredentials},
		"empty":                   {[]string{x, ""}, "", auth.ErrNoCredentials},
		"empty Bearer":            {[]string{a, "Bearer"}, "", auth.ErrNoCredentials},
		"key without scheme":      {[]string{a, opsKey}, "", auth.ErrNoCredentials},
		"wrong":                   {[]string{x, wrongKey}, "", auth.ErrBadCredentials},
		"cut short":               {[]string{x, opsKey[:len(opsKey)-1]}, "", auth.ErrBadCredentials},
		"longer":                  {[]string{x, opsKey + "A"}, "", auth.ErrBadCredentials},
		"other case":              {[]string{x, strings.ToUpper(opsKey)}, "", auth.ErrBadCredentials},
		"a name":                  {[]string{x, "ops"}, "", auth.ErrBadCredentials},
		"its hash":                {[]string{x, strings.Fields(goldenText(t)[strings.Index(goldenText(t), "\nops"):])[1]}, "", auth.ErrBadCredentials},
		"huge":                    {[]string{x, strings.Repeat("A", 1<<20)}, "", auth.ErrBadCredentials},
		"two headers":             {[]string{x, opsKey, a, "Bearer " + ciKey}, "", auth.ErrBadCredentials},
		"two headers, one wrong":  {[]string{x, opsKey, a, "Bearer " + wrongKey}, "", auth.ErrBadCredentials},
		"two headers, one empty":  {[]string{x, "", a, "Bearer " + opsKey}, "", auth.ErrBadCredentials},
		"one header twice":        {[]string{x, opsKey, x, ciKey}, "", auth.ErrBadCredentials},
		"expired":                 {[]string{x, oldKey}, "", auth.ErrExpired},
		"expired is bad as well":  {[]string{x, oldKey}, "", auth.ErrBadCredentials},
		"not yet":                 {[]string{x, soonKey}, "", auth.ErrNotYet},
		"not yet is bad as well":  {[]string{x, soonKey}, "", auth.ErrBadCredentials},
		"several in one, as text": {[]string{x, opsKey + ", " + ciKey}, "", auth.ErrBadCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := keys.At(request(tt.headers...), now)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil {
				if p.Name != tt.want || p.Method != auth.MethodAPIKey {
					t.Errorf("principal %q by %q, want %q", p.Name, p.Method, tt.want)
				}
				return
			}
			if p != nil {
				t.Errorf("principal %q with %v", p.Name, err)
			}
			for i := 1; i < len(tt.headers); i += 2 {
				if v := tt.headers[i]; len(v) > 3 && strings.Contains(err.Error(), v) {
					t.Errorf("the error quotes the credential: %v", err)
				}
			}
		})
	}
}

func TestAHugeKeyIsNotHashed(t *testing.T) {
	_, err := golden(t).Authenticate(request("X-Api-Key", strings.Repeat("A", 1<<20)))
	if err == nil || !strings.Contains(err.Error(), "longer than any API key") {
		t.Error(err)
	}
}

func TestTheKeyIsNotReadFromTheURL(t *testing.T) {
	r := httptest.NewRequest("GET", "/bridge/connect?X-Api-Key="+opsKey+"&apiKey="+opsKey+"&access_token="+opsKey, nil)
	if p, err := golden(t).Authenticate(r); !errors.Is(err, auth.ErrNoCredentials) || p != nil {
		t.Errorf("%v, %v", p, err)
	}
}

func TestTimesToTheInstant(t *testing.T) {
	keys := golden(t)
	expires := time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)
	from := time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600)).AddDate(1, 0, 0)
	for name, tt := range map[string]struct {
		key  string
		at   time.Time
		want error
	}{
		"before it expires": {oldKey, expires.Add(-1), nil},
		"as it expires":     {oldKey, expires, auth.ErrExpired},
		"before it starts":  {soonKey, from.Add(-1), auth.ErrNotYet},
		"as it starts":      {soonKey, from, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := keys.At(request("X-Api-Key", tt.key), tt.at)
			if !errors.Is(err, tt.want) || (p == nil) != (tt.want != nil) {
				t.Errorf("%v, %v, want %v", p, err, tt.want)
			}
			if p != nil && tt.key == oldKey && !p.Expires.Equal(expires) {
				t.Errorf("Expires = %v", p.Expires)
			}
		})
	}
}

// TestOneKeyOnTwoLines: the line that works now wins, in either order.
func TestOneKeyOnTwoLines(t *testing.T) {
	line := func(name, options string) string {
		h, err := auth.HashKey(opsKey)
		if err != nil {
			t.Fatal(err)
		}
		return name + " " + h + " " + options + "\n"
	}
	past, future := line("past", "expires=2020-01-01T00:00:00Z"), line("future", "not-before=2999-01-01T00:00:00Z")
	a, b := line("a", ""), line("b", "")
	for text, want := range map[string]string{past + a + future: "a", future + b + past: "b", a + b: "a", b + a: "b", past + b + a: "b"} {
		keys, err := auth.ParseKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := keys.At(request("X-Api-Key", opsKey), now); err != nil || p.Name != want {
			t.Errorf("%v, %v, want %s", p, err, want)
		}
	}
}

func TestAllow(t *testing.T) {
	keys := golden(t)
	for name, tt := range map[string]struct {
		key, device, target string
		fault               string // empty: allowed
	}{
		"all":                         {opsKey, "pump-7", "ssh", ""},
		"all, default target":         {opsKey, "pump-7", "", ""},
		"device and target":           {ciKey, "test-1", "web", ""},
		"device crossing separators":  {ciKey, "test-a/b:c.d", "web", ""},
		"device with a literal star":  {ciKey, "lab*1", "web", ""},
		"literal star is no wildcard": {ciKey, "lab-1", "web", `device "lab-1"`},
		"device with a comma":         {ciKey, "a,b", "web", ""},
		"device with a hash":          {ciKey, "#3", "web", ""},
		"other device":                {ciKey, "pump-7", "web", `device "pump-7"`},
		"device by case":              {ciKey, "TEST-1", "web", `device "TEST-1"`},
		"device prefix only":          {ciKey, "atest-1", "web", `device "atest-1"`},
		"other target":                {ciKey, "test-1", "ssh", `not target "ssh"`},
		"target host:port":            {ciKey, "test-1", "10.0.3.17:443", ""},
		"other host":                  {ciKey, "test-1", "10.1.3.17:443", `not target "10.1.3.17:443"`},
		"other port":                  {ciKey, "test-1", "10.0.3.17:22", `not target "10.0.3.17:22"`},
		"port longer":                 {ciKey, "test-1", "10.0.3.17:4433", `not target "10.0.3.17:4433"`},
		"IPv6 host:port":              {ciKey, "test-1", "[fd00::1]:80", ""},
		"no default target":           {ciKey, "test-1", "", "not its default target: name a target"},
		"only the default target":     {legacyKey, "pump-7", "", ""},
		"no named target":             {legacyKey, "pump-7", "ssh", `not target "ssh"`},
		"the target named dash":       {legacyKey, "pump-7", "-", `not target "-"`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := keys.At(request("X-Api-Key", tt.key), now)
			if err != nil {
				t.Fatal(err)
			}
			err = p.Allow(tt.device, tt.target)
			if tt.fault == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, auth.ErrForbidden) || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("error %v, want ErrForbidden with %q", err, tt.fault)
			}
			if strings.Contains(err.Error(), "lab") && !strings.Contains(tt.device, "lab") {
				t.Errorf("the error tells the rules: %v", err)
			}
		})
	}
}

func TestAllowByGrants(t *testing.T) {
	globs := func(list string) []auth.Glob {
		g, err := auth.ParseGlobs(list, true)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	p := &auth.Principal{Name: "p", Grants: []auth.Grant{
		{Devices: globs("a*"), Targets: globs("web")},
		{Devices: globs("ab,c"), Targets: globs("ssh")},
		{Devices: globs("x")}, // no target at all
	}}
	for _, tt := range []struct {
		device, target string
		want           bool
	}{
		{"a", "web", true}, {"ab", "web", true}, {"ab", "ssh", true}, {"c", "ssh", true},
		{"a", "ssh", false}, {"c", "web", false}, {"x", "", false}, {"x", "web", false}, {"d", "web", false}, {"", "web", false},
	} {
		if err := p.Allow(tt.device, tt.target); (err == nil) != tt.want {
			t.Errorf("%s, %s: %v, want %t", tt.device, tt.target, err, tt.want)
		}
	}
	if err := new(auth.Principal).Allow("a", ""); !errors.Is(err, auth.ErrForbidden) {
		t.Errorf("the zero principal: %v", err)
	}
}

func TestAllowAll(t *testing.T) {
	p, err := auth.AllowAll{}.Authenticate(request())
	if err != nil || p.Name != "anonymous" || p.Method != auth.MethodNone {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, target := range []string{"", "ssh", "10.0.0.1:22"} {
		if err := p.Allow("pump-7", target); err != nil {
			t.Error(err)
		}
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReplace(t *testing.T) {
	path := writeFile(t, goldenText(t))
	keys, err := auth.LoadKeys(path)
	if err != nil || keys.Len() != 5 {
		t.Fatalf("%d keys, %v", keys.Len(), err)
	}
	works := func(key string) bool { _, err := keys.Authenticate(request("X-Api-Key", key)); return err == nil }

	hash, err := auth.HashKey(wrongKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Replace(goldenText(t) + "\nbroken line\n"); err == nil || !strings.Contains(err.Error(), "line ") {
		t.Errorf("a broken text: %v", err)
	}
	if !works(opsKey) || works(wrongKey) || keys.Len() != 5 {
		t.Error("a broken text changed the keys")
	}
	if err := os.WriteFile(path, []byte("new "+hash), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := auth.ReadFile(path)
	if err != nil || keys.Replace(text) != nil {
		t.Fatal(err)
	}
	if works(opsKey) || !works(wrongKey) || keys.Len() != 1 {
		t.Error("the new text does not count")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// The zero Keys lets nobody in, and can become others.
func TestZeroKeys(t *testing.T) {
	var keys auth.Keys
	if _, err := keys.Authenticate(request("X-Api-Key", opsKey)); !errors.Is(err, auth.ErrBadCredentials) || keys.Len() != 0 {
		t.Errorf("got %v, %d keys", err, keys.Len())
	}
	if err := keys.Replace(goldenText(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Authenticate(request("X-Api-Key", opsKey)); err != nil {
		t.Error(err)
	}
}

func TestReplaceWhileInUse(t *testing.T) {
	keys := golden(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 50 {
				if p, err := keys.Authenticate(request("X-Api-Key", opsKey)); err != nil || p.Allow("d", "") != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			if err := keys.Replace(goldenText(t)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

func TestFileMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("Windows has no such modes; LoadKeys does not look at them")
		return
	}
	path := writeFile(t, goldenText(t))
	for mode, ok := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o640: true, 0o644: true, 0o444: true, 0o440: true,
		0o660: false, 0o620: false, 0o666: false, 0o602: false, 0o777: false,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := auth.LoadKeys(path)
		if (err == nil) != ok {
			t.Errorf("mode %#o: %v", mode, err)
		}
		if !ok && !strings.Contains(fmt.Sprint(err), "chmod go-w") {
			t.Errorf("mode %#o: no advice in %v", mode, err)
		}
		// As a Kubernetes secret is mounted: through a link with mode 0777.
		link := path + "-link"
		os.Remove(link)
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if _, err := auth.LoadKeys(link); (err == nil) != ok {
			t.Errorf("mode %#o, by a link: %v", mode, err)
		}
	}
	if _, err := auth.LoadKeys(filepath.Dir(path)); err == nil {
		t.Error("a directory loads")
	}
}

// A signed URL is good for what it names, letter by letter, and for nothing else.
func TestSigned(t *testing.T) {
	p := auth.Signed("ops", "lab*?1", []string{"größe", "10.0.0.*:22"}, now)
	if p.Name != "signed:ops" || p.Method != auth.MethodSigned || !p.Expires.Equal(now) {
		t.Errorf("%+v", p)
	}
	for _, target := range []string{"größe", "10.0.0.*:22"} {
		if err := p.Allow("lab*?1", target); err != nil {
			t.Error(err)
		}
	}
	for _, no := range [][2]string{{"lab-x1", "größe"}, {"lab*?", "größe"}, {"", "größe"}, {"lab*?1", ""}, {"lab*?1", "10.0.0.5:22"}, {"lab*?1", "größe2"}} {
		if err := p.Allow(no[0], no[1]); !errors.Is(err, auth.ErrForbidden) {
			t.Errorf("%q: %v", no, err)
		}
	}
	byDefault := auth.Signed("ops", "d", []string{""}, now)
	if byDefault.Allow("d", "") != nil || byDefault.Allow("d", "ssh") == nil {
		t.Error("the default target is not the default target alone")
	}
}

// What became of a key since its principal was made.
func TestRenew(t *testing.T) {
	h := func(key string) string {
		t.Helper()
		hash, err := auth.HashKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	hash := h(opsKey)
	keys, err := auth.ParseKeys("ops " + hash)
	if err != nil {
		t.Fatal(err)
	}
	p, err := keys.At(request("X-Api-Key", opsKey), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file string
		want       error
		reaches    string // a device
	}{
		{"nothing", "ops " + hash, nil, "pump-7"},
		{"other devices", "ops " + hash + " devices=valve-*", nil, "valve-1"},
		{"expired", "ops " + hash + " expires=2026-01-02T03:04:05Z", auth.ErrExpired, ""},
		{"not yet", "ops " + hash + " not-before=2026-01-02T03:04:06Z", auth.ErrNotYet, ""},
		{"gone", "ci " + h(ciKey), auth.ErrBadCredentials, ""},
		{"another key of that name", "ops " + h(ciKey), auth.ErrBadCredentials, ""},
		{"another name", "opsnow " + hash, nil, "pump-7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := keys.Replace(tt.file); err != nil {
				t.Fatal(err)
			}
			got, err := keys.RenewAt(p, now)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && got.Allow(tt.reaches, "ssh") != nil {
				t.Errorf("got %+v", got)
			}
		})
	}
	other := &auth.Principal{Name: "oidc:ann", Method: "oidc"}
	if got, err := keys.Renew(other); err != nil || got != other {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestOwner(t *testing.T) {
	if got := auth.Signed("ops", "d", []string{""}, now).Owner(); got != "ops" {
		t.Error(got)
	}
	if got := (&auth.Principal{Name: "signed:ops", Method: auth.MethodAPIKey}).Owner(); got != "signed:ops" {
		t.Error(got)
	}
}
