//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
)

// markdown writes two tables: the chains side by side, and the goals.
func markdown(w io.Writer, b *book) {
	chains(w, b)
	fmt.Fprintln(w)
	fmt.Fprintln(w, "| figure | ours (min–max) | reference (min–max) | ratio (min–max) | goal | met |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- |")
	for _, g := range goals() {
		r := g.judge(b)
		if !r.measured() {
			continue
		}
		reference, ratio := "–", "–"
		if g.reference != "" {
			reference = r.reference.text(g.unit) + ", " + g.reference
			ratio = fmt.Sprintf("**%.2f** (%.2f–%.2f)", r.ratio.Median, r.ratio.Min, r.ratio.Max)
		}
		met := "**no**"
		if r.met() {
			met = "yes"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", g.title, r.ours.text(g.unit), reference, ratio, g.wanted(), met)
	}
	builds(w, b)
	paths(w, b)
	if len(b.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range b.Notes {
		fmt.Fprintln(w, "- "+n)
	}
}

// text is the median, and from where to where the rounds went.
func (s summary) text(unit string) string {
	t := number(s.Median)
	if unit != "" {
		t += " " + unit
	}
	if s.Rounds > 1 {
		t += fmt.Sprintf(" (%s–%s)", number(s.Min), number(s.Max))
	}
	return t
}

// number has three digits, or as many as its whole part.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// columns of the table of chains: a title, and the metrics in a cell.
var columns = []struct {
	title   string
	metrics []string
	form    string // of the cell; %s for each metric
}{
	{"up MiB/s, 1 · 8 streams", []string{"throughput up 1", "throughput up 8"}, "%s · %s"},
	{"down, 1 · 8", []string{"throughput down 1", "throughput down 8"}, "%s · %s"},
	{"CPU s/GiB up, all (relay)", []string{"throughput up 1 cpu all", "throughput up 1 cpu relay"}, "%s (%s)"},
	{"RTT µs p50, p99", []string{"rtt 1 p50", "rtt 1 p99"}, "%s, %s"},
	{"of 32 streams", []string{"rtt 32 p50", "rtt 32 p99"}, "%s, %s"},
	{"beside 32 MiB/s", []string{"rtt beside bulk p50", "rtt beside bulk p99"}, "%s, %s"},
	{"new streams/s at 16 · 64", []string{"new streams 16", "new streams 64"}, "%s · %s"},
	{"idle KiB/stream: proxy · relay · agent", []string{"idle stream proxy", "idle stream relay", "idle stream agent"}, "%s · %s · %s"},
	{"half-close", []string{"half-close"}, "%s"},
}

func chains(w io.Writer, b *book) {
	head, rule := "| |", "| --- |"
	for _, c := range columns {
		head += " " + c.title + " |"
		rule += " --- |"
	}
	fmt.Fprintf(w, "%s\n%s\n", head, rule)
	for _, subject := range []string{chainSplice, chainFrames, chainTLS, ours, oursTLS} {
		row := "| " + subject + " |"
		if subject == ours || subject == oursTLS {
			row = "| **" + subject + "** |"
		}
		for _, c := range columns {
			var cell []any
			for _, m := range c.metrics {
				text := number(median(b.of(m, subject)))
				if m == "half-close" && text != "–" {
					text = "yes"
				}
				cell = append(cell, text)
			}
			row += " " + fmt.Sprintf(c.form, cell...) + " |"
		}
		fmt.Fprintln(w, row)
	}
}

// builds compares ours with the other build.
func builds(w io.Writer, b *book) {
	head := false
	for _, e := range b.entries() {
		reference := otherOf[e.subject]
		was := b.of(e.metric, reference)
		if len(was) == 0 {
			continue
		}
		if !head {
			fmt.Fprint(w, "\n| figure | this build (min–max) | the other (min–max) | ratio (min–max) |\n| --- | --- | --- | --- |\n")
			head = true
		}
		now := b.of(e.metric, e.subject)
		r := summarize(ratios(now, was))
		fmt.Fprintf(w, "| %s, %s | %s | %s | **%.2f** (%.2f–%.2f) |\n", e.metric, e.subject, summarize(now).text(""), summarize(was).text(""), r.Median, r.Min, r.Max)
	}
}

// environment is what the numbers depend on.
func environment() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	cpu := ""
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value) + ", "
				break
			}
		}
	}
	return fmt.Sprintf("%s%d cores, Linux %s, %s", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version())
}

// writeJSON writes all that was measured.
func writeJSON(w io.Writer, b *book) error {
	type sample struct {
		Metric  string    `json:"metric"`
		Subject string    `json:"subject"`
		Values  []float64 `json:"values"` // a round each
		summary
	}
	type judged struct {
		Title     string   `json:"title"`
		Metric    string   `json:"metric"`
		Subject   string   `json:"subject"`
		Reference string   `json:"reference,omitempty"`
		Ratio     *summary `json:"ratio,omitempty"`
		Goal      string   `json:"goal"`
		Met       bool     `json:"met"`
	}
	out := struct {
		Environment string   `json:"environment"`
		Samples     []sample `json:"samples"`
		Goals       []judged `json:"goals"`
		Notes       []string `json:"notes,omitempty"`
	}{Environment: environment(), Notes: b.Notes}
	for _, e := range b.entries() {
		v := b.of(e.metric, e.subject)
		out.Samples = append(out.Samples, sample{e.metric, e.subject, v, summarize(v)})
	}
	for _, g := range goals() {
		r := g.judge(b)
		if !r.measured() {
			continue
		}
		j := judged{g.title, g.metric, g.subject, g.reference, nil, g.wanted(), r.met()}
		if g.reference != "" {
			j.Ratio = &r.ratio
		}
		out.Goals = append(out.Goals, j)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}
