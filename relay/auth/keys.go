package auth

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

const headerAPIKey = "X-Api-Key" // #nosec G101 -- a name: wire.HeaderAPIKey; this package imports nothing of ours

// Keys authenticates by API keys. Its methods may be called concurrently.
// The zero Keys knows none.
type Keys struct {
	set atomic.Pointer[[]entry]
}

// An entry is one line of the keys file.
type entry struct {
	name      string
	hash      keyHash
	notBefore time.Time // zero: always
	expires   time.Time // zero: never
	grants    []Grant
}

// LoadKeys reads a keys file. See the package comment for its format.
//
// On unix the file must not be writable by its group or by others: who can
// write a line can be anybody. It may be readable; it holds only hashes.
func LoadKeys(path string) (*Keys, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ParseKeys is LoadKeys with the text of a file.
func ParseKeys(text string) (*Keys, error) {
	k := new(Keys)
	if err := k.Replace(text); err != nil {
		return nil, err
	}
	return k, nil
}

// Replace swaps all keys at once for those in the text of a file, also while
// others authenticate. After an error the old keys stay, and the error is for
// the log.
func (k *Keys) Replace(text string) error {
	set, err := parse(text)
	if err != nil {
		return fmt.Errorf("API keys: %w", err)
	}
	k.set.Store(&set)
	return nil
}

// Len is the number of keys, for the log.
func (k *Keys) Len() int { return len(k.entries()) }

func (k *Keys) entries() []entry {
	if set := k.set.Load(); set != nil {
		return *set
	}
	return nil
}

// ReadFile returns the text of a keys file, for Replace. It looks at the file's
// mode as LoadKeys does.
func ReadFile(path string) (string, error) {
	text, err := ReadOwned(path, MaxFile)
	if err != nil {
		return "", fmt.Errorf("API keys: %w", err)
	}
	return text, nil
}

// ReadOwned returns what a file holds that only its owner may write, or max+1 bytes of it
// if that is more.
func ReadOwned(path string, max int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat() // of what we have open, not of what the path means by now
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: is not a regular file", path)
	}
	// Windows has no such bits; Go makes them up from the read-only flag.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o022 != 0 {
		return "", fmt.Errorf("%s: mode %#o lets others than its owner write; chmod go-w it", path, mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return "", err
	}
	return string(b), nil
}

// Renew returns the principal of an API key as it would be now: its line may have other
// devices, or be gone, which is ErrBadCredentials. Principals of other methods are
// returned as they are.
func (k *Keys) Renew(p *Principal) (*Principal, error) {
	return k.renew(p, time.Now())
}

func (k *Keys) renew(p *Principal, now time.Time) (*Principal, error) {
	if p.Method != MethodAPIKey {
		return p, nil
	}
	for i, set := 0, k.entries(); i < len(set); i++ {
		if e := &set[i]; e.hash == p.key {
			if err := e.check(now); err != nil {
				return nil, fmt.Errorf("API key %q: %w", e.name, err)
			}
			return e.principal(), nil
		}
	}
	return nil, fmt.Errorf("%w: API key %q is gone", ErrBadCredentials, p.Name)
}

// Authenticate returns the principal whose key r carries as X-Api-Key or as
// Authorization: Bearer. The error is ErrNoCredentials, ErrBadCredentials,
// ErrExpired or ErrNotYet; its text is for the log.
func (k *Keys) Authenticate(r *http.Request) (*Principal, error) {
	return k.authenticate(r, time.Now())
}

func (k *Keys) authenticate(r *http.Request, now time.Time) (*Principal, error) {
	key, err := credential(r.Header)
	if err != nil {
		return nil, err
	}
	if len(key) > maxKey {
		return nil, fmt.Errorf("%w: longer than any API key", ErrBadCredentials)
	}
	// No early exit: see "Why" in the package comment. A key on two lines is
	// whichever works now, so that adding a line is enough to extend one.
	var match *entry
	for i, set := 0, k.entries(); i < len(set); i++ {
		e := &set[i]
		if e.hash.matches(key) == 1 && (match == nil || match.check(now) != nil) {
			match = e
		}
	}
	if match == nil {
		return nil, fmt.Errorf("%w: unknown API key", ErrBadCredentials)
	}
	if err := match.check(now); err != nil {
		return nil, fmt.Errorf("API key %q: %w", match.name, err)
	}
	return match.principal(), nil
}

func (e *entry) principal() *Principal {
	return &Principal{Name: e.name, Method: MethodAPIKey, Expires: e.expires, Grants: e.grants, key: e.hash}
}

// check says whether the time is right for e.
func (e *entry) check(now time.Time) error {
	switch {
	case now.Before(e.notBefore):
		return ErrNotYet
	case !e.expires.IsZero() && !now.Before(e.expires):
		return ErrExpired
	}
	return nil
}

// credential returns the one key in h. Two different ones are an attack or a
// mistake, and picking either would be wrong for somebody.
func credential(h http.Header) (string, error) {
	found := append([]string(nil), h.Values(headerAPIKey)...)
	for _, v := range h.Values("Authorization") {
		// The scheme's case does not matter (RFC 9110 section 11.1). Other
		// schemes are not for us: a proxy in front may want Basic.
		if scheme, key, _ := strings.Cut(v, " "); strings.EqualFold(scheme, "Bearer") {
			found = append(found, strings.TrimLeft(key, " "))
		}
	}
	if len(found) == 0 {
		return "", ErrNoCredentials
	}
	for _, key := range found[1:] {
		if key != found[0] {
			return "", fmt.Errorf("%w: two different ones in one request", ErrBadCredentials)
		}
	}
	if found[0] == "" {
		return "", fmt.Errorf("%w: the header is empty", ErrNoCredentials)
	}
	return found[0], nil
}
