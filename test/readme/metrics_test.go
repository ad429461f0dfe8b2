package readme_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
	"websocketbridge/signaler/fake"
)

// A family is one metric as a relay exports it.
type family struct {
	kind   string
	labels map[string]map[string]bool // and the values that are there from the start
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\w+) (\w+)$`)
	sampleLine = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? `)
	labelPair  = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// exported is what a relay that has just started tells Prometheus.
func exported(t *testing.T) map[string]*family {
	t.Helper()
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	srv, err := relay.New(relay.Config{PublicURL: "ws://127.0.0.1", Signaler: fake.New(fake.Config{}), Keys: ring, Auth: auth.AllowAll{}})
	if err != nil {
		t.Fatal(err)
	}
	srv.Metrics().Watch("RELAY_API_KEYS")
	w := httptest.NewRecorder()
	srv.AdminHandler().ServeHTTP(w, httptest.NewRequest("GET", wire.PathMetrics, nil))
	all := make(map[string]*family)
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if m := typeLine.FindStringSubmatch(line); m != nil {
			all[m[1]] = &family{m[2], make(map[string]map[string]bool)}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		f := all[m[1]]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if f == nil {
				f = all[strings.TrimSuffix(m[1], suffix)]
			}
		}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if f.labels[pair[1]] == nil {
				f.labels[pair[1]] = make(map[string]bool)
			}
			f.labels[pair[1]][pair[2]] = true
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d metrics:\n%s", len(all), w.Body)
	}
	return all
}

// The table of metrics has each with its kind and labels, and no other.
func TestMetrics(t *testing.T) {
	doc := text(t, readme)
	told := map[string]bool{}
	all := exported(t)
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`relay_.*"+`) \| (.*) \| (.*?) ?\| .*\|$`).FindAllStringSubmatch(doc, -1) {
		names := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1)
		kinds := strings.Split(row[2], ", ")
		for i, name := range names {
			told[name[1]] = true
			f := all[name[1]]
			if f == nil {
				t.Errorf("README.md has %s, which no relay exports", name[1])
				continue
			}
			if kind := kinds[min(i, len(kinds)-1)]; kind != f.kind {
				t.Errorf("README.md calls %s a %s; it is a %s", name[1], kind, f.kind)
			}
			labels := slices.Collect(maps.Keys(f.labels))
			labels = slices.DeleteFunc(labels, func(l string) bool { return l == "le" })
			for _, l := range labels {
				if !strings.Contains(row[3], "`"+l+"`") {
					t.Errorf("README.md does not say that %s has the label %s", name[1], l)
				}
			}
			if n := strings.Count(row[3], "`") / 2; n != len(labels) {
				t.Errorf("README.md gives %s %d labels; it has %v", name[1], n, labels)
			}
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "relay_") && !told[name] {
			t.Errorf("README.md does not have %s", name)
		}
	}
}

var (
	selector = regexp.MustCompile(`\b((?:relay|go|process)_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)(=~|=|!=)"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
)

// ofPrometheus are labels that a relay does not export.
var ofPrometheus = []string{"instance", "job", "le", "alertname"}

// checkQuery says what a query asks for that no relay has.
func checkQuery(query string, all map[string]*family) (used, faults []string) {
	bad := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	labels := map[string]bool{}
	for _, m := range selector.FindAllStringSubmatch(query, -1) {
		f := all[m[1]]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(m[1], suffix); f == nil && ok && all[base] != nil && all[base].kind == "histogram" {
				f, m[1] = all[base], base
			}
		}
		if f == nil {
			bad("no relay exports %s", m[1])
			continue
		}
		used = append(used, m[1])
		for l := range f.labels {
			labels[l] = true
		}
		for _, pair := range matcher.FindAllStringSubmatch(m[2], -1) {
			if slices.Contains(ofPrometheus, pair[1]) {
				continue
			}
			values, ok := f.labels[pair[1]]
			if !ok {
				bad("%s has no label %s", m[1], pair[1])
				continue
			}
			for _, want := range strings.Split(pair[3], "|") {
				re, err := regexp.Compile("^(?:" + want + ")$")
				if err != nil || !slices.ContainsFunc(slices.Collect(maps.Keys(values)), re.MatchString) {
					bad("%s{%s} is never %q", m[1], pair[1], want)
				}
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(query, -1) {
		for _, l := range strings.Split(m[1], ", ") {
			if !labels[l] && !slices.Contains(ofPrometheus, l) {
				bad("groups by %s, which nothing in %s has", l, query)
			}
		}
	}
	return used, faults
}

// Dashboard and alerts ask for what a relay exports, by the labels and values that it has;
// and what it exports is asked for.
func TestMetricsAreUsed(t *testing.T) {
	all := exported(t)
	used := map[string]bool{}
	check := func(where, query string) {
		names, faults := checkQuery(query, all)
		for _, fault := range faults {
			t.Errorf("%s: %s", where, fault)
		}
		if len(names) == 0 && !strings.Contains(query, "up{job=") {
			t.Errorf("%s: asks for nothing: %s", where, query)
		}
		for _, name := range names {
			used[name] = true
		}
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(text(t, "../../infra/grafana/dashboard.json")), &board); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for i, p := range board.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d has the ID of another, or no title", p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			check("panel "+p.Title, target.Expr)
		}
		for _, q := range board.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panel %s covers panel %s", p.Title, q.Title)
			}
		}
	}
	for _, a := range board.Annotations.List {
		check("annotation", a.Expr)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      struct{ Severity string }
				Annotations struct{ Summary, Description string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text(t, "../../infra/prometheus/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	tested := text(t, "../../infra/prometheus/alerts_test.yaml")
	n := 0
	for _, r := range rules.Groups[0].Rules {
		n++
		check("alert "+r.Alert, r.Expr)
		if r.Labels.Severity == "" || r.Annotations.Summary == "" || r.Annotations.Description == "" {
			t.Errorf("alert %s does not say how bad it is, what is wrong, or what to do", r.Alert)
		}
		if !strings.Contains(tested, fmt.Sprintf("{alertname=%q}", r.Alert)) {
			t.Errorf("no test makes %s fire", r.Alert)
		}
	}
	if n < 10 || len(board.Panels) < 20 {
		t.Errorf("only %d alerts and %d panels are found", n, len(board.Panels))
	}
	for name := range all {
		if strings.HasPrefix(name, "relay_") && !used[name] {
			t.Errorf("%s is on no panel and in no alert", name)
		}
	}
}

// What is wrong is found.
func TestCheckQuery(t *testing.T) {
	all := exported(t)
	for query, wrong := range map[string]bool{
		`sum by (state) (relay_bridges{state="open"})`: false,
		`rate(relay_handshake_seconds_bucket[5m])`:     false,
		`relay_bridge`:                  true,
		`relay_bridges{state="opened"}`: true,
		`relay_bridges{status="open"}`:  true,
		`relay_bridges_bucket`:          true,
		`sum by (code) (relay_bridges)`: true,
		`sum by (le, stage) (rate(relay_handshake_stage_seconds_bucket{stage=~"signal|x"}[5m]))`: true,
	} {
		if _, faults := checkQuery(query, all); len(faults) > 0 != wrong {
			t.Errorf("%s: found %v", query, faults)
		}
	}
}
