package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxGlob is in bytes: twice the longest device ID or target, all escaped.
const maxGlob = 256

// A Glob is a pattern of device IDs or targets; see the package comment. The
// zero Glob matches only the empty name.
type Glob struct{ parts []part }

// A part is one character of a glob.
type part struct {
	kind partKind
	lit  rune
}

type partKind uint8

const (
	literal partKind = iota
	oneChar
	anyChars
)

var everything = []Glob{{[]part{{kind: anyChars}}}}

// ParseGlob reads a pattern. Its errors do not quote it.
func ParseGlob(s string) (Glob, error) {
	switch {
	case s == "":
		return Glob{}, errors.New("is empty; * matches all")
	case len(s) > maxGlob:
		return Glob{}, fmt.Errorf("has %d bytes; %d are allowed", len(s), maxGlob)
	case !utf8.ValidString(s):
		return Glob{}, errors.New("is not valid UTF-8")
	}
	var g Glob
	escaped := false
	for _, r := range s {
		switch {
		case r <= ' ' || r == 0x7f:
			return Glob{}, errors.New("has a space or a control character, which no name has")
		case escaped:
			// \d or \w is somebody who expects a regular expression.
			if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
				return Glob{}, errors.New(`has a \ before a letter or digit; this is no regular expression`)
			}
			g.parts = append(g.parts, part{literal, r})
			escaped = false
		case r == '\\':
			escaped = true
		case r == '?':
			g.parts = append(g.parts, part{kind: oneChar})
		case r == '*':
			if n := len(g.parts); n == 0 || g.parts[n-1].kind != anyChars { // ** is *
				g.parts = append(g.parts, part{kind: anyChars})
			}
		default:
			g.parts = append(g.parts, part{literal, r})
		}
	}
	if escaped {
		return Glob{}, errors.New(`ends with a single \`)
	}
	return g, nil
}

// literalGlob matches name and nothing else.
func literalGlob(name string) Glob {
	var g Glob
	for _, r := range name {
		g.parts = append(g.parts, part{literal, r})
	}
	return g
}

// Match reports whether the whole name matches.
//
// When a literal fails, only the last * has to take one more character: what an
// earlier one could take instead, the last can take too. So there is no
// recursion, and never more than len(pattern) × len(name) steps, whoever wrote
// the name.
func (g Glob) Match(name string) bool {
	var (
		p, s         int      // where we are
		starP, starS = -1, -1 // behind the last *, and the name's rest that it has not taken yet
	)
	for s < len(name) {
		r, size := utf8.DecodeRuneInString(name[s:])
		invalid := r == utf8.RuneError && size == 1 // is no literal, not even U+FFFD itself
		switch {
		case p < len(g.parts) && g.parts[p].kind == anyChars:
			p++
			starP, starS = p, s
		case p < len(g.parts) && (g.parts[p].kind == oneChar || g.parts[p].lit == r && !invalid):
			p++
			s += size
		case starP >= 0:
			_, size = utf8.DecodeRuneInString(name[starS:])
			starS += size
			p, s = starP, starS
		default:
			return false
		}
	}
	for p < len(g.parts) && g.parts[p].kind == anyChars {
		p++
	}
	return p == len(g.parts)
}

// String is g as a list of targets in the keys file has it.
func (g Glob) String() string {
	if len(g.parts) == 0 {
		return "-"
	}
	if len(g.parts) == 1 && g.parts[0] == (part{literal, '-'}) {
		return `\-`
	}
	var b strings.Builder
	for _, p := range g.parts {
		switch {
		case p.kind == anyChars:
			b.WriteByte('*')
		case p.kind == oneChar:
			b.WriteByte('?')
		default:
			if strings.ContainsRune(`*?\,`, p.lit) {
				b.WriteByte('\\')
			}
			b.WriteRune(p.lit)
		}
	}
	return b.String()
}

// parseGlobs reads a list of an option: separated by commas that no \ escapes.
// With dash, the item - is the zero Glob: the empty name.
func parseGlobs(list string, dash bool) ([]Glob, error) {
	var globs []Glob
	for i, item := range splitList(list) {
		if dash && item == "-" {
			globs = append(globs, Glob{})
			continue
		}
		g, err := ParseGlob(item)
		if err != nil {
			return nil, fmt.Errorf("item %d %w", i+1, err)
		}
		globs = append(globs, g)
	}
	return globs, nil
}

func splitList(s string) []string {
	var items []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++ // whatever it is, it separates nothing
		case ',':
			items = append(items, s[start:i])
			start = i + 1
		}
	}
	return append(items, s[start:])
}
