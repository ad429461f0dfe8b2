package auth

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a keys file.
const (
	MaxKeys = 256               // all compared on every request: a millisecond, as a TLS handshake costs
	maxLine = 4 << 10           // bytes
	MaxFile = MaxKeys * maxLine // bytes
	maxName = 64                // bytes

	maxFaults = 20 // worth reading; after that it is the wrong file
)

// parse reads a keys file. Its errors say where and what, never quoting the
// file: any part of it may be a key in the wrong place.
func parse(text string) ([]entry, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("more than %d bytes", MaxFile)
	}
	var (
		set    []entry
		faults []error
		names  = make(map[string]int)
		hashes = make(map[keyHash]int)
	)
	text = strings.TrimPrefix(text, "\ufeff") // Windows editors put it there
	for i, line := range strings.Split(text, "\n") {
		fault := func(err error) { faults = append(faults, fmt.Errorf("line %d: %w", i+1, err)) }
		if len(line) > maxLine {
			fault(fmt.Errorf("more than %d bytes", maxLine))
			continue
		}
		if !utf8.ValidString(line) {
			fault(errors.New("is not valid UTF-8"))
			continue
		}
		fields := fieldsOf(line)
		if len(fields) == 0 {
			continue
		}
		e, errs := parseEntry(fields)
		for _, err := range errs {
			fault(err)
		}
		if at, dup := names[e.name]; dup && e.name != "" {
			fault(fmt.Errorf("NAME is that of line %d", at))
		}
		if at, dup := hashes[e.hash]; dup && e.hash != (keyHash{}) {
			fault(fmt.Errorf("HASH is that of line %d", at))
		}
		names[e.name], hashes[e.hash] = i+1, i+1
		set = append(set, e)
	}
	switch {
	case len(faults) > maxFaults:
		faults = append(faults[:maxFaults:maxFaults], errors.New("and so on"))
	case len(faults) > 0:
	case len(set) == 0:
		// An empty file would lock everybody out, most likely by accident.
		faults = append(faults, errors.New("there is none; make one with: relay hash-key NAME"))
	case len(set) > MaxKeys:
		faults = append(faults, fmt.Errorf("there are %d; %d are allowed", len(set), MaxKeys))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return set, nil
}

// fieldsOf splits a line at white space, up to a field that starts with #.
// Inside of a field # is a character like any: IoT Hub allows it in device IDs.
func fieldsOf(line string) []string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if f[0] == '#' {
			return fields[:i]
		}
	}
	return fields
}

func parseEntry(fields []string) (e entry, faults []error) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }

	if err := checkName(fields[0]); err != nil {
		fault("NAME %w", err)
	} else {
		e.name = fields[0]
	}
	if len(fields) < 2 {
		fault("HASH is missing")
		return e, faults
	}
	var err error
	if e.hash, err = parseHash(fields[1]); err != nil {
		faults = append(faults, err)
	}

	devices, targets := everything, everything
	seen := make(map[string]bool)
	for i, f := range fields[2:] {
		name, value, ok := strings.Cut(f, "=")
		if seen[name] {
			fault("field %d: the option is there twice", i+3)
			continue
		}
		seen[name] = true
		var err error
		switch {
		case !ok:
			err = errUnknown
		case name == "devices":
			devices, err = parseGlobs(value, false)
		case name == "targets":
			targets, err = parseGlobs(value, true)
		case name == "not-before":
			e.notBefore, err = parseTime(value)
		case name == "expires":
			e.expires, err = parseTime(value)
		default:
			err = errUnknown
		}
		switch {
		case err == errUnknown:
			fault("field %d: %w", i+3, err)
		case err != nil:
			fault("%s: %w", name, err)
		}
	}
	if !e.notBefore.IsZero() && !e.expires.IsZero() && !e.notBefore.Before(e.expires) {
		fault("not-before is not before expires")
	}
	e.grants = []Grant{{devices, targets}}
	return e, faults
}

var errUnknown = errors.New("unknown option; there are devices=, targets=, not-before= and expires=")

func checkName(s string) error {
	switch {
	case strings.HasPrefix(s, keyPrefix), strings.HasPrefix(s, hashScheme+":"):
		return errors.New("is a key or a hash; the order is NAME HASH OPTIONS")
	case len(s) > maxName:
		return fmt.Errorf("has %d bytes; %d are allowed", len(s), maxName)
	case strings.HasPrefix(s, SignedPrefix):
		return fmt.Errorf("is taken: %s… is who comes with a signed URL", SignedPrefix)
	case strings.HasPrefix(s, OIDCPrefix), strings.HasPrefix(s, CertPrefix):
		return fmt.Errorf("is taken: %s… and %s… are who comes with a token or a certificate", OIDCPrefix, CertPrefix)
	case s == AnonymousName:
		return fmt.Errorf("is taken: %s is who comes without authentication", AnonymousName)
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-@+:/", c) >= 0) {
			return errors.New("has a character other than A-Z a-z 0-9 . _ - @ + : /")
		}
	}
	return nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return time.Time{}, errors.New("is not RFC 3339, such as 2027-01-31T00:00:00Z")
	}
	return t.UTC(), nil
}
