//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.456: "0.46", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345.6: "12346", -0.4: "-0.40"} {
		if got := number(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
	if got := number(median(nil)); got != "–" {
		t.Errorf("nothing: got %q", got)
	}
}

// measured is a book of two rounds.
func measured() *book {
	b := newBook()
	for _, v := range [][2]float64{{900, 1000}, {700, 1000}, {850, 1000}} {
		b.add("throughput up 1", ours, v[0])
		b.add("throughput up 1", chainFrames, v[1])
	}
	b.add("throughput up 1 cpu relay", ours, 0.6)
	b.add("throughput up 1 cpu relay", chainFrames, 0.5)
	b.add("bridges", ours, 1500)
	b.add("bridges p99", ours, 101)
	b.add("idle bridges that answer", ours, 9000)
	b.add("half-close", ours, 1)
	b.note("a note")
	b.note("a note")
	return b
}

func TestMarkdown(t *testing.T) {
	var out bytes.Buffer
	markdown(&out, measured())
	for _, want := range []string{
		"| 1 stream, up | 850 MiB/s (700–900) | 1000 MiB/s (1000–1000), WebSocket frames ×3 | **0.85** (0.70–0.90) | ≥ 0.80× | yes |\n",
		"| CPU of the relay, up | 0.60 s/GiB | 0.50 s/GiB, WebSocket frames ×3 | **1.20** (1.20–1.20) | ≤ 1.15× | **no** |\n",
		"| new bridges, 64 at once | 1500 1/s | – | – | ≥ 1000 1/s | yes |\n",
		"| new bridges, p99 | 101 ms | – | – | ≤ 100 ms | **no** |\n",
		"| idle bridges that answer | 9000 | – | – | ≥ 20000 | **no** |\n",
		"| **ours** | 850 · – | – · – | – (0.60) |",
		"- a note\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "8 streams, up |") {
		t.Error("there is a line of what was not measured")
	}
	if strings.Count(out.String(), "a note") != 1 {
		t.Error("a note is there twice")
	}
	for _, table := range strings.Split(out.String(), "\n\n") { // every row of a table has as many cells
		if n := strings.Count(strings.SplitN(table, "\n", 2)[0], "|"); strings.HasPrefix(table, "|") {
			for line := range strings.Lines(table) {
				if strings.Count(line, "|") != n {
					t.Errorf("%d bars in a table of %d: %s", strings.Count(line, "|"), n, line)
				}
			}
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := writeJSON(&out, measured()); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Samples []struct {
			Metric, Subject string
			Values          []float64
			Median          float64
		}
		Goals []struct {
			Title string
			Ratio *struct{ Median float64 }
			Met   bool
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if s := got.Samples[len(got.Samples)-1]; s.Metric != "throughput up 1 cpu relay" || s.Subject != ours || s.Median != 0.6 {
		t.Errorf("got %v at last", s)
	}
	if g := got.Goals[0]; g.Title != "1 stream, up" || !g.Met || g.Ratio.Median != 0.85 {
		t.Errorf("got %v", g)
	}
}

// Each goal is about something that a figure measures, by a name that no other has.
func TestGoals(t *testing.T) {
	names, titles := make(map[string]bool), make(map[string]bool)
	for _, f := range figures() {
		if names[f.name] {
			t.Errorf("two figures are called %q", f.name)
		}
		names[f.name] = true
	}
	suffix := regexp.MustCompile(` (p\d+|cpu \w+|that answer|relay|agent)$`)
	for _, g := range goals() {
		if titles[g.title] {
			t.Errorf("two goals are called %q", g.title)
		}
		titles[g.title] = true
		figure := suffix.ReplaceAllString(g.metric, "")
		if !names[figure] && !names[figure+"s"] {
			t.Errorf("%s: no figure measures %q", g.title, g.metric)
		}
	}
}
