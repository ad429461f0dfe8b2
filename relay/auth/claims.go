package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxPersonName is in bytes: package relay takes 256 for a signed URL's, prefixes and all.
const maxPersonName = 200

// checkPersonName says why a name that an identity provider or an authority chose cannot
// be a principal's. Unlike an API key's it may have letters of any script.
func checkPersonName(s string) error {
	switch {
	case s == "":
		return errors.New("is missing or empty")
	case len(s) > maxPersonName:
		return fmt.Errorf("has more than %d bytes", maxPersonName)
	case !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return errors.New("is not valid UTF-8")
	case strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("has a character that does not print, or a space at an end")
	}
	return nil
}

// claims are what a token says.
type claims map[string]any

func parseClaims(payload []byte) (claims, error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var c claims
	if err := d.Decode(&c); err != nil || c == nil {
		return nil, errors.New("its claims are no JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something is behind its claims")
	}
	return c, nil
}

// spaced are claims that are lists in one string (RFC 8693 section 4.2; Entra ID's scp).
var spaced = []string{"scope", "scp"}

// list is a claim's values as text. What is no text, number or bool is left out.
func (c claims) list(name string) []string {
	values, ok := c[name].([]any)
	if !ok {
		values = []any{c[name]}
	}
	var out []string
	for _, v := range values {
		switch v := v.(type) {
		case string:
			if slices.Contains(spaced, name) {
				out = append(out, strings.Fields(v)...)
			} else {
				out = append(out, v)
			}
		case json.Number:
			out = append(out, v.String())
		case bool:
			out = append(out, strconv.FormatBool(v))
		}
	}
	return out
}

// first is a claim that is one text, or nothing.
func (c claims) first(name string) string {
	s, _ := c[name].(string)
	return s
}

// time reads a NumericDate (RFC 7519 section 2); zero: it is not there.
func (c claims) time(name string) (time.Time, error) {
	if c[name] == nil {
		return time.Time{}, nil
	}
	n, _ := c[name].(json.Number)
	s, err := n.Float64()
	const end = 253402300800 // the year 10000
	if err != nil || math.IsNaN(s) || s < 1 || s >= end {
		return time.Time{}, fmt.Errorf("its %s is no time", name)
	}
	whole, part := math.Modf(s)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), nil
}

// isApp says whether an application has got the token for itself: Entra ID says so in
// idtyp, if it is asked to, or gives both IDs the same value.
func (c claims) isApp() bool {
	return c.first("idtyp") == "app" || c.first("oid") != "" && c.first("oid") == c.first("sub")
}

// noise is in many tokens, and no rule wants it.
var noise = []string{"exp", "nbf", "iat", "auth_time", "nonce", "jti", "uti", "rh", "aio", "at_hash", "c_hash", "xms_ftd", "sid", "ipaddr"}

// lists are the claims for rules. maxJWT bounds them.
func (c claims) lists() map[string][]string {
	out := make(map[string][]string, len(c))
	for name := range c {
		if slices.Contains(noise, name) {
			continue
		}
		if l := c.list(name); len(l) > 0 {
			out[name] = l
		}
	}
	return out
}
