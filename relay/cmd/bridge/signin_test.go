package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay/auth/authtest"
	"websocketbridge/relay/client"
)

const (
	testIssuer = "https://id.example.com"
	testRelay  = "wss://relay.example.com"
)

// home makes a store in a directory of the test's own.
func home(t *testing.T) store {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} {
		t.Setenv(name, dir)
	}
	s, err := storeFor(testRelay)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newProvider() *authtest.Provider {
	p := authtest.New(testIssuer)
	p.SetClaims(map[string]any{"aud": "api://bridge", "preferred_username": "ada@example.com"})
	return p
}

// Everything that a token endpoint may say while the user is at the browser. The minute in
// which the code is good passes at once.
func TestLogin(t *testing.T) {
	for name, tt := range map[string]struct {
		pending []string
		took    time.Duration // 0: does not matter
		exit    int
		code    string
		says    string
	}{
		"at once":   {nil, time.Second, exitOK, "", ""},
		"pending":   {[]string{"authorization_pending", "authorization_pending"}, 3 * time.Second, exitOK, "", ""},
		"slow down": {[]string{"slow_down", "authorization_pending"}, 13 * time.Second, exitOK, "", ""},
		"denied":    {[]string{"authorization_pending", "access_denied"}, 0, exitAuth, codeSignIn, "refused in the browser"},
		"expired":   {[]string{"expired_token"}, 0, exitAuth, codeSignIn, "expired before it was entered"},
		"forgotten": {slices.Repeat([]string{"authorization_pending"}, 100), time.Minute, exitAuth, codeSignIn, "expired before it was entered"},
		"no client": {[]string{"invalid_client"}, 0, exitAuth, codeSignIn, "the issuer answers invalid_client: said by the provider"},
	} {
		t.Run(name, func(t *testing.T) {
			s := home(t)
			synctest.Test(t, func(t *testing.T) {
				p := newProvider()
				p.SetPending(tt.pending...)
				var out, errOut bytes.Buffer
				u := &ui{out: &out, err: &errOut}
				began := time.Now()
				err := login(t.Context(), u, loginSettings{testIssuer, "cli", []string{"a", "b"}}, s, p.Client())
				if f := explain(err); f.Exit != tt.exit || f.Code != tt.code || !strings.Contains(f.Detail, tt.says) {
					t.Fatalf("%+v", f)
				}
				if took := time.Since(began); tt.took > 0 && (took < tt.took || took > tt.took+time.Second) {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if !strings.Contains(errOut.String(), "open https://id.example.com/activate\n") || !strings.Contains(errOut.String(), "ABCD-EFGH") {
					t.Errorf("the user was not told: %q", errOut.String())
				}
				for _, secret := range append(p.Issued(), "device-code-secret") {
					if strings.Contains(out.String()+errOut.String(), secret) {
						t.Error("a secret was printed")
					}
				}
				in, loadErr := s.load()
				if err != nil {
					if !errors.Is(loadErr, fs.ErrNotExist) {
						t.Errorf("kept: %v, %v", in, loadErr)
					}
					return
				}
				if loadErr != nil || in.AccessToken != p.Issued()[0] || in.RefreshToken != p.Issued()[1] || in.who() != "ada@example.com" {
					t.Errorf("kept: %v", loadErr)
				}
			})
		})
	}
}

func TestLoginStrangers(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(p *authtest.Provider)
		says   string
	}{
		"away":           {func(p *authtest.Provider) { p.SetDown(true) }, "connection refused"},
		"another issuer": {func(p *authtest.Provider) { p.Issuer = "https://id.example.net" }, "did not match"},
	} {
		t.Run(name, func(t *testing.T) {
			s := home(t)
			p := newProvider()
			tt.change(p)
			err := login(t.Context(), &ui{}, loginSettings{testIssuer, "cli", nil}, s, p.Client())
			if f := explain(err); f.Exit != exitAuth || f.Code != codeIssuer || !strings.Contains(f.Detail, tt.says) || f.Hint == "" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// signedIn is a sign-in that was just made.
func signedIn(t *testing.T, p *authtest.Provider, s store) *tokens {
	t.Helper()
	var none bytes.Buffer
	if err := login(t.Context(), &ui{out: &none, err: &none}, loginSettings{testIssuer, "cli", []string{"x", "y"}}, s, p.Client()); err != nil {
		t.Fatal(err)
	}
	return &tokens{s, p.Client()}
}

func (tk *tokens) wants(t *testing.T, p *authtest.Provider, sent int, want error) string {
	t.Helper()
	got, err := tk.token(t.Context())
	if !errors.Is(err, want) || (got == "") != (err != nil) {
		t.Fatalf("%v, want %v", err, want)
	}
	if n := len(p.Forms()); n != sent {
		t.Fatalf("%d requests for tokens, want %d", n, sent)
	}
	return got
}

// A tunnel runs for days: its token is refreshed when it is about to end, each refresh
// token is used once, and an issuer that is away for a while does not end it.
func TestTokensRefresh(t *testing.T) {
	s := home(t)
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		tk := signedIn(t, p, s)
		first := tk.wants(t, p, 1, nil)
		time.Sleep(58*time.Minute - 2*time.Second)
		if tk.wants(t, p, 1, nil) != first {
			t.Error("another token too early")
		}
		time.Sleep(2 * time.Second)
		second := tk.wants(t, p, 2, nil)
		if second == first || tk.wants(t, p, 2, nil) != second {
			t.Error("it was not refreshed once")
		}
		if f := p.Forms()[1]; f.Get("scope") != "x y" || f.Get("client_id") != "cli" {
			t.Errorf("asked with %v", f.Get("scope"))
		}
		time.Sleep(59 * time.Minute)
		p.SetDown(true)
		if tk.wants(t, p, 2, nil) != second {
			t.Error("the old one is good for a minute")
		}
		time.Sleep(time.Minute)
		if _, err := tk.token(t.Context()); err == nil || errors.Is(err, client.ErrSignIn) { // a Link tries again
			t.Errorf("away: %v", err)
		}
		p.SetDown(false)
		tk.wants(t, p, 3, nil)
		p.SetRefuse("temporarily_unavailable")
		time.Sleep(time.Hour)
		if _, err := tk.token(t.Context()); err == nil || errors.Is(err, client.ErrSignIn) {
			t.Errorf("unavailable: %v", err)
		}
		p.SetRefuse("invalid_grant")
		_, err := tk.token(t.Context())
		if f := explain(err); !errors.Is(err, client.ErrSignIn) || f.Exit != exitAuth || f.Hint != "bridge login" {
			t.Errorf("refused: %+v", f)
		}
		for _, secret := range p.Issued() {
			if strings.Contains(err.Error(), secret) {
				t.Error("the error quotes a token")
			}
		}
		if _, err := s.remove(); err != nil {
			t.Fatal(err)
		}
		tk.wants(t, p, 5, client.ErrSignIn)
	})
}

// Many at once, as processes have it: locks are of open files, not of processes.
func TestTokensAtOnce(t *testing.T) {
	s := home(t)
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		signedIn(t, p, s)
		time.Sleep(2 * time.Hour)
		var all sync.WaitGroup
		var mu sync.Mutex
		got := map[string]int{}
		for range 20 {
			all.Go(func() {
				token, err := (&tokens{s, p.Client()}).token(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got[token]++
			})
		}
		all.Wait()
		if len(got) != 1 || len(p.Forms()) != 2 {
			t.Errorf("%d tokens by %d requests, want 1 by one more than the sign-in's", len(got), len(p.Forms()))
		}
	})
}

// A lock that nobody gives back is waited for, and not for ever.
func TestLockIsHeld(t *testing.T) {
	s := home(t)
	synctest.Test(t, func(t *testing.T) {
		unlock, err := s.lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.lock(t.Context()); err == nil || !strings.Contains(err.Error(), "another process holds") {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.lock(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		unlock()
		again, err := s.lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again()
	})
}

func TestStore(t *testing.T) {
	s := home(t)
	if _, err := s.load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	in := &signIn{Relay: testRelay, AccessToken: "a", RefreshToken: "secret-refresh", Expires: time.Now().Add(time.Hour)}
	if err := s.save(in); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]fs.FileMode{s.path: 0o600, filepath.Dir(s.path): 0o700} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(s.path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(){
		"others read":  func() { os.Chmod(s.path, 0o640) },
		"others write": func() { os.Chmod(s.path, 0o602) },
		"open folder":  func() { os.Chmod(filepath.Dir(s.path), 0o777) },
		"cut":          func() { os.WriteFile(s.path, text[:len(text)/2], 0o600) },
		"empty":        func() { os.WriteFile(s.path, nil, 0o600) },
		"huge":         func() { os.WriteFile(s.path, append(bytes.Repeat([]byte(" "), 1<<20), text...), 0o600) },
		"another's": func() {
			os.WriteFile(s.path, bytes.ReplaceAll(text, []byte("relay.example"), []byte("other.example")), 0o600)
		},
		"no token": func() { os.WriteFile(s.path, bytes.ReplaceAll(text, []byte(`"a"`), []byte(`""`)), 0o600) },
	} {
		change()
		_, err := s.load()
		f := explain(err)
		if f.Exit != exitAuth || f.Hint == "" || strings.Contains(f.Detail, "secret-refresh") {
			t.Errorf("%s: %+v", name, f)
		}
		os.Chmod(filepath.Dir(s.path), 0o700)
		os.Chmod(s.path, 0o600)
		if err := s.save(in); err != nil { // a new sign-in repairs it
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.load(); err != nil {
			t.Errorf("%s, saved anew: %v", name, err)
		}
	}
}

// One relay has one sign-in, however its address is written; two have two.
func TestStoreFor(t *testing.T) {
	home(t)
	path := func(relay string) string {
		s, err := storeFor(relay)
		if err != nil {
			t.Fatal(err)
		}
		return s.path
	}
	want := path(testRelay)
	for _, same := range []string{testRelay + "/", "https://relay.example.com", "wss://Relay.Example.COM"} {
		if path(same) != want {
			t.Errorf("%s has another", same)
		}
	}
	for _, other := range []string{"wss://relay.example.com:8443", "wss://relay.example.com/b", "wss://relay.example.org", "ws://relay.example.com"} {
		if path(other) == want {
			t.Errorf("%s has the same", other)
		}
	}
}

func TestLoginSettings(t *testing.T) {
	const entra = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
	for _, tt := range []struct {
		flags, env loginSettings
		want       loginSettings
	}{
		{loginSettings{issuer: entra, clientID: "c"}, loginSettings{}, loginSettings{entra, "c", []string{"api://c/.default", "offline_access"}}},
		{loginSettings{}, loginSettings{entra, "c", []string{"api://x/.default"}}, loginSettings{entra, "c", []string{"api://x/.default", "offline_access"}}},
		{loginSettings{clientID: "d"}, loginSettings{testIssuer, "c", nil}, loginSettings{testIssuer, "d", []string{"openid", "offline_access"}}},
		{loginSettings{scopes: []string{"y"}}, loginSettings{testIssuer, "c", []string{"x"}}, loginSettings{testIssuer, "c", []string{"y"}}},
	} {
		got := tt.flags.orElse(tt.env)
		if got.issuer != tt.want.issuer || got.clientID != tt.want.clientID || !slices.Equal(got.scopes, tt.want.scopes) {
			t.Errorf("%v and %v: %v, want %v", tt.flags, tt.env, got, tt.want)
		}
	}
}

// FuzzSignIn: whatever the file holds, it is a sign-in or an error that quotes nothing.
func FuzzSignIn(f *testing.F) {
	good, _ := json.Marshal(signIn{Relay: testRelay, AccessToken: "e.e30.e", Expires: time.Unix(1, 0)})
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"relay":"wss://relay.example.com","accessToken":"a.!.b","expires":"9999-12-31T23:59:59Z"}`))
	f.Add([]byte("null"))
	dir := f.TempDir()
	s := store{testRelay, filepath.Join(dir, "x.json")}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(s.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := s.load()
		if (in == nil) == (err == nil) {
			t.Fatalf("%v, %v", in, err)
		}
		if in != nil {
			in.who()
			in.fresh(time.Now())
			return
		}
		if len(b) > 20 && strings.Contains(err.Error(), string(b)) {
			t.Fatalf("quoted: %v", err)
		}
	})
}
