package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"websocketbridge/relay/client"
)

// A signIn is what bridge login got for one relay. Its tokens are secrets.
type signIn struct {
	Relay        string    `json:"relay"`
	Issuer       string    `json:"issuer"`
	ClientID     string    `json:"clientId"`
	Scopes       []string  `json:"scopes"`
	TokenURL     string    `json:"tokenUrl"`
	AccessToken  string    `json:"accessToken"`
	RefreshToken string    `json:"refreshToken,omitempty"`
	Obtained     time.Time `json:"obtained"`
	Expires      time.Time `json:"expires"` // of the access token
}

const (
	maxSignIn = 256 << 10              // bytes of a file
	lockPoll  = 50 * time.Millisecond  // between looks at a lock that another process has
	lockMost  = refreshMost + lockPoll // the other process refreshes, too
)

// A store is the file of the sign-in for one relay: DIR/websocketbridge/HASH.json, where
// DIR is the user's configuration directory. Beside it is HASH.lock.
type store struct {
	relay string // its address, in one form
	path  string
}

func storeFor(relay string) (store, error) {
	u, err := client.ParseURL(relay, true)
	if err != nil {
		return store{}, err
	}
	u.Host, u.Path, u.RawPath = strings.ToLower(u.Host), strings.TrimRight(u.Path, "/"), ""
	dir, err := os.UserConfigDir()
	if err != nil {
		return store{}, fmt.Errorf("there is no place for sign-ins: %w", err)
	}
	sum := sha256.Sum256([]byte(u.String()))
	return store{u.String(), filepath.Join(dir, "websocketbridge", hex.EncodeToString(sum[:16])+".json")}, nil
}

// load returns fs.ErrNotExist where there is no sign-in.
func (s store) load() (*signIn, error) {
	if err := s.checkDir(); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Windows has no such bits; the user's profile is the user's there.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, hintError{signInError{fmt.Sprintf("sign-in %s: mode %#o lets others read it or write it", s.path, mode)},
			"somebody may have read it: bridge logout, then bridge login"}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSignIn+1))
	if err != nil {
		return nil, err
	}
	in := new(signIn)
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(in); err != nil || len(b) > maxSignIn || in.Relay != s.relay || in.AccessToken == "" {
		return nil, hintError{signInError{fmt.Sprintf("sign-in %s is damaged", s.path)}, "bridge login writes it anew"} // what is in it is nobody's business
	}
	return in, nil
}

func (s store) checkDir() error {
	dir := filepath.Dir(s.path)
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o022 != 0 {
		return hintError{signInError{fmt.Sprintf("directory %s: mode %#o lets others write in it", dir, mode)}, "chmod 700 it"}
	}
	return nil
}

// makeDir makes the directory, for the user only.
func (s store) makeDir() error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	return s.checkDir()
}

// save replaces the file in one step: who reads it meanwhile gets the old or the new one.
func (s store) save(in *signIn) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), ".sign-in-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // where it has not become the file
	_, err = f.Write(append(b, '\n'))
	if err := cmpErr(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.path)
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// remove says whether there was one.
func (s store) remove() (bool, error) {
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lock keeps other processes from refreshing meanwhile: an issuer may take each refresh
// token only once, and take its second use for a theft. The lock file stays, because to
// remove it would let two in.
func (s store) lock(ctx context.Context) (unlock func(), err error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(strings.TrimSuffix(s.path, ".json")+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockMost, fmt.Errorf("another process holds %s", f.Name()))
	defer cancel()
	for {
		switch ok, err := tryLock(f); {
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		case ok:
			return func() { f.Close() }, nil
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
