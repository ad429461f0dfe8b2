package auth_test

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"websocketbridge/relay/auth"
)

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		glob, name string
		want       bool
	}{
		{"*", "", true},
		{"*", "a/b:c", true},
		{"**", "a", true},
		{"?", "", false},
		{"?", "a", true},
		{"?", "é", true},
		{"?", "\xff", true},
		{"\ufffd", "\xff", false},
		{"\ufffd", "\ufffd", true},
		{"a*b", "ab", true},
		{"a*b", "a-b-b", true},
		{"a*b", "a-b-c", false},
		{"*a*b*", "xxaxxbxx", true},
		{"*ab", "aab", true},
		{"a?c*", "abcd", true},
		{"a?c*", "acd", false},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{`a\?`, "a?", true},
		{`a\?`, "ab", false},
		{`\\`, `\`, true},
		{`\-`, "-", true},
		{"-", "-", true},
		{"[a-c]", "b", false},
		{"[::1]:*", "[::1]:22", true},
		{"pump-7", "pump-7", true},
		{"pump-7", "pump-77", false},
		{"pump-7", "Pump-7", false},
	} {
		g, err := auth.ParseGlob(tt.glob)
		if err != nil {
			t.Errorf("%s: %v", tt.glob, err)
			continue
		}
		if got := g.Match(tt.name); got != tt.want {
			t.Errorf("%s matches %q: %t, want %t", tt.glob, tt.name, got, tt.want)
		}
	}
	for _, s := range []string{"", `\`, `a\`, `\d`, `\A`, `\0`, "a b", "a\tb", "a\x00", "\x7f", "\xff", strings.Repeat("a", 257)} {
		if _, err := auth.ParseGlob(s); err == nil {
			t.Errorf("%q is a glob", s)
		}
	}
	if g := (auth.Glob{}); !g.Match("") || g.Match("a") || g.String() != "-" {
		t.Error("the zero glob matches something else than the empty name")
	}
}

// TestGlobIsNotExponential: a pattern on which backtracking into every * would
// outlast the universe.
func TestGlobIsNotExponential(t *testing.T) {
	g, err := auth.ParseGlob(strings.Repeat("*a", 128))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if g.Match(strings.Repeat("a", 1<<16) + "b") {
		t.Error("matches")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// FuzzGlob compares Match with regexp, and String with what it came from.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"*", "a*b?c", `\**\\?`, "*a*a*a", "é?*", `\-`, "-"} {
		f.Add(s, "aabbcc*\\-é")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := auth.ParseGlob(pattern)
		if err != nil {
			return
		}
		again, err := auth.ParseGlob(g.String())
		if err != nil || again.String() != g.String() {
			t.Fatalf("%q -> %q: %v", pattern, g, err)
		}
		if !utf8.ValidString(name) { // regexp takes an invalid byte for U+FFFD
			g.Match(name)
			return
		}
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for rest := pattern; rest != ""; {
			r, n := utf8.DecodeRuneInString(rest)
			switch {
			case r == '*':
				re.WriteString(".*")
			case r == '?':
				re.WriteString(".")
			case r == '\\':
				var m int
				r, m = utf8.DecodeRuneInString(rest[n:])
				n += m
				fallthrough
			default:
				re.WriteString(regexp.QuoteMeta(string(r)))
			}
			rest = rest[n:]
		}
		re.WriteString(`\z`)
		want := regexp.MustCompile(re.String()).MatchString(name)
		if got := g.Match(name); got != want {
			t.Fatalf("%q matches %q: %t, want %t", pattern, name, got, want)
		}
		if again.Match(name) != want {
			t.Fatalf("%q, from %q, matches %q: %t", again, pattern, name, !want)
		}
	})
}
