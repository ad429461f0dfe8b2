// Package test_test guards the tree: who may import whom, and that each package
// says what it is for.
package test_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "websocketbridge/"

// imports is the table: a package and what it may import of ours. A new package
// needs a row. Test files may also import what testImports says.
var imports = map[string][]string{
	"signaler":              {},
	"signaler/fake":         {"signaler"},
	"signaler/signalertest": {"signaler"},
	"signaler/sas":          {},
	"signaler/credential":   {"signaler/sas"},
	"signaler/entra":        {"signaler/credential"},
	"signaler/c2d":          {"signaler", "signaler/credential"},
	"signaler/method":       {"signaler", "signaler/credential"},
	"signaler/auto":         {"signaler", "signaler/method"},
	"relay":                 {"relay/audit", "relay/auth", "relay/calm", "relay/cluster", "relay/metrics", "relay/policy", "relay/token", "relay/trace", "relay/pump", "relay/wire", "relay/ws", "signaler"},
	"relay/calm":            {},
	"relay/cluster":         {"relay/calm"},
	"relay/wire":            {},
	"relay/ws":              {},
	"relay/token":           {},
	"relay/auth":            {},
	"relay/audit":           {},
	"relay/metrics":         {"relay/wire"},
	"relay/policy":          {"relay/auth"},
	"relay/trace":           {},
	"relay/auth/authtest":   {},
	"relay/session":         {},
	"relay/settings":        {},
	"relay/pump":            {"relay/wire", "relay/ws"},
	"relay/client":          {"relay/session", "relay/wire", "relay/ws"},
	"relay/cmd/relay": {
		"relay", "relay/audit", "relay/auth", "relay/calm", "relay/cluster", "relay/metrics", "relay/policy", "relay/settings", "relay/token", "relay/trace", "relay/wire", "relay/ws", "signaler", "signaler/auto", "signaler/c2d", "signaler/credential",
		"signaler/entra", "signaler/fake", "signaler/method", "signaler/sas",
	},
	"relay/cmd/bridge":    {"relay/client", "relay/session", "relay/settings", "relay/wire", "relay/ws"},
	"deviceagent":         {"relay/session", "relay/wire", "relay/ws", "signaler"},
	"deviceagent/hub":     {"relay/ws", "signaler", "signaler/sas"},
	"deviceagent/lent":    {"signaler"},
	"deviceagent/handoff": {"deviceagent/socket", "signaler"},
	"deviceagent/socket":  {},
	"deviceagent/status":  {"deviceagent", "deviceagent/socket"},
	"deviceagent/service": {},
	"deviceagent/cmd/deviceagent": {
		"deviceagent", "deviceagent/handoff", "deviceagent/hub", "deviceagent/service", "deviceagent/socket", "deviceagent/status", "relay/settings", "relay/ws", "signaler", "signaler/fake", "signaler/sas",
	},
	"test":                       {},
	"test/bench":                 anything,
	"test/clients":               anything,
	"test/clients/azure":         anything,
	"test/e2e":                   anything,
	"test/e2e/hub":               anything,
	"test/emulator":              {"signaler/sas", "test/emulator/amqp", "test/emulator/mqtt"},
	"test/emulator/amqp":         {},
	"test/emulator/mqtt":         {},
	"test/emulator/cmd/emulator": {"relay/settings", "test/emulator"},
	"test/front":                 {},
	"test/images":                anything,
	"test/netfault":              {},
	"test/netns":                 anything,
	"test/process":               {},
	"test/process/processtest":   {"test/process", "test/testlog"},
	"test/proxies":               anything,
	"test/quickstart":            anything,
	"test/readme":                anything,
	"test/secrets":               anything,
	"test/testlog":               {},
}

var anything = []string{"*"}

// foreign is the table of third parties: who may know them. What is not in it,
// nobody may: a device should not link what it does not use. Test files and test/
// may know more.
var foreign = map[string][]string{
	"github.com/Azure/azure-sdk-for-go":    {"signaler/entra"},
	"github.com/Azure/go-amqp":             {"signaler/c2d"},
	"github.com/amenzhinsky/iothub":        {"deviceagent/lent"},
	"github.com/coreos/go-systemd":         {"deviceagent/cmd/deviceagent"},
	"github.com/coreos/go-oidc":            {"relay/auth", "relay/cmd/bridge"},
	"github.com/eclipse/paho.mqtt.golang":  {"deviceagent/hub", "deviceagent/lent"},
	"github.com/go-jose/go-jose":           {"relay/auth", "relay/auth/authtest"},
	"github.com/gorilla/websocket":         {"relay/ws", "signaler/c2d", "signaler/fake"},
	"github.com/kelseyhightower/envconfig": {"relay/settings"},
	"github.com/pires/go-proxyproto":       {"relay/cmd/relay"},
	"github.com/prometheus/client_golang":  {"relay/metrics"},
	"github.com/spf13/cobra":               {"relay/cmd/relay", "relay/cmd/bridge"},
	"go.opentelemetry.io/otel":             {"relay/trace"},
	"go.yaml.in/yaml/v3":                   {"relay/policy"},
	"golang.org/x/crypto/chacha20poly1305": {"relay/token"},
	"golang.org/x/net/proxy":               {"relay/ws", "signaler/c2d"},
	"golang.org/x/oauth2":                  {"relay/cmd/bridge"},
	"golang.org/x/sys":                     {"deviceagent/service", "deviceagent/cmd/deviceagent", "relay/cmd/bridge", "relay/ws"},
	"golang.org/x/term":                    {"relay/cmd/relay", "relay/cmd/bridge"},
	"golang.org/x/time/rate":               {"relay", "relay/audit", "signaler/method"},
	"testing":                              {"signaler/signalertest"},
}

// mayKnow says who may import a third party's package: the row of the longest
// path that holds it.
func mayKnow(imp string) []string {
	for p := imp; p != "."; p = path.Dir(p) {
		if who, ok := foreign[p]; ok {
			return who
		}
	}
	return nil
}

// thirdParty says whether an import is neither ours nor the standard library's.
func thirdParty(imp string) bool {
	host, _, _ := strings.Cut(imp, "/")
	return strings.Contains(host, ".") || imp == "testing"
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for file := range goFiles(t) {
		pkg := path.Dir(file)
		seen[pkg] = true
		allowed, ok := imports[pkg]
		if !ok {
			t.Errorf("%s: package %s has no row in the table of imports", file, pkg)
			continue
		}
		inTest := strings.HasSuffix(file, "_test.go")
		for _, imp := range importsOf(t, file) {
			ours, ok := strings.CutPrefix(imp, module)
			if !ok {
				if thirdParty(imp) && !inTest && !slices.Contains(mayKnow(imp), pkg) && !strings.HasPrefix(pkg, "test") {
					t.Errorf("%s imports %s; the table lets %v do so", file, imp, mayKnow(imp))
				}
				continue
			}
			if ours == pkg || slices.Contains(allowed, ours) || slices.Equal(allowed, anything) {
				continue
			}
			// Between folders only test → deviceagent → relay → signaler, also in
			// tests, but for the networks that they run on and the logs they keep.
			if inTest && (rank(ours) <= rank(pkg) || ours == "test/netfault" || ours == "test/testlog") {
				continue
			}
			t.Errorf("%s imports %s, which the table does not allow", file, ours)
		}
	}
	for pkg := range imports {
		if !seen[pkg] {
			t.Errorf("the table has a row for %s, which has no Go files", pkg)
		}
	}
}

// TestSmallPrograms: what runs on devices and at users' is small, and traces and counts
// nothing. Whatever they come to import, these packages are not among it.
func TestSmallPrograms(t *testing.T) {
	direct := map[string][]string{} // without tests
	for file := range goFiles(t) {
		if !strings.HasSuffix(file, "_test.go") {
			direct[path.Dir(file)] = append(direct[path.Dir(file)], importsOf(t, file)...)
		}
	}
	for _, program := range []string{"deviceagent/cmd/deviceagent", "relay/cmd/bridge"} {
		seen := map[string]bool{}
		for todo := []string{program}; len(todo) > 0; {
			pkg := todo[0]
			todo = todo[1:]
			for _, imp := range direct[pkg] {
				ours, ok := strings.CutPrefix(imp, module)
				if ok && !seen[ours] {
					seen[ours] = true
					todo = append(todo, ours)
				}
			}
		}
		if len(seen) < 5 {
			t.Errorf("%s: only %d packages are found", program, len(seen))
		}
		for _, big := range []string{"relay", "relay/metrics", "relay/trace", "relay/auth", "relay/audit"} {
			if seen[big] {
				t.Errorf("%s links %s", program, big)
			}
		}
	}
}

// rank orders the folders: each may use those below it.
func rank(pkg string) int {
	top, _, _ := strings.Cut(pkg, "/")
	return slices.Index([]string{"signaler", "relay", "deviceagent", "test"}, top)
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said := map[string]bool{}
	for file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") && path.Dir(file) != "test" {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := path.Dir(file)
		said[dir] = said[dir] || f.Doc != nil
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no comment", pkg)
		}
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"relay", "signaler", "deviceagent", "infra", "test", "go.mod", "go.sum", "Dockerfile", "README.md", "LICENSE"}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(want, e.Name()) {
			t.Errorf("%s does not belong at the top", e.Name())
		}
	}
}

func importsOf(t *testing.T, file string) (out []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, imp := range f.Imports {
		out = append(out, strings.Trim(imp.Path.Value, `"`))
	}
	return out
}

// goFiles yields every Go file, relative to the top, with slashes.
func goFiles(t *testing.T) func(func(string) bool) {
	return func(yield func(string) bool) {
		err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != "..") {
				return filepath.SkipDir
			}
			rel, _ := filepath.Rel("..", p)
			if strings.HasSuffix(p, ".go") && !yield(filepath.ToSlash(rel)) {
				return filepath.SkipAll
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
