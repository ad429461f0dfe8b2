package sas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// scheme starts every token.
const scheme = "SharedAccessSignature "

// maxToken is in bytes; a real one has less than 500.
const maxToken = 4 << 10

// Sign makes a token for resource, which Sign encodes. keyName is the policy's, or
// empty with a device's own key. key is base64. Expiry is cut to whole seconds.
func Sign(resource, keyName, key string, expiry time.Time) (string, error) {
	if resource == "" {
		return "", errors.New("sign: no resource")
	}
	k, err := decodeKey(key)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	sr, se := escape(resource), strconv.FormatInt(expiry.Unix(), 10)
	token := scheme + "sr=" + sr + "&sig=" + escape(base64.StdEncoding.EncodeToString(sign(k, sr, se))) + "&se=" + se
	if keyName != "" {
		token += "&skn=" + escape(keyName)
	}
	return token, nil
}

// escape leaves no character that means something in a token or a form: unlike
// url.QueryEscape it has %20 for a space, as every SDK but Go's.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func sign(key []byte, sr, se string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sr + "\n" + se))
	return mac.Sum(nil)
}

// A Token is a shared access signature that came from somebody. Parsing proves
// nothing: Verify, Covers and the expiry do.
type Token struct {
	Resource  string // sr exactly as sent, still encoded
	Signature []byte
	Expiry    time.Time
	Policy    string // skn; empty: signed with a device's own key

	se string // as sent: the signature is over it
}

// ParseToken reads a token. Its errors quote nothing of it.
func ParseToken(s string) (Token, error) {
	t, err := parseToken(s)
	if err != nil {
		return Token{}, fmt.Errorf("shared access signature: %w", err)
	}
	return t, nil
}

func parseToken(s string) (Token, error) {
	if len(s) > maxToken {
		return Token{}, fmt.Errorf("has %d bytes; %d are allowed", len(s), maxToken)
	}
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return Token{}, errors.New("does not start with SharedAccessSignature and a space")
	}
	fields := make(map[string]string)
	for pair := range strings.SplitSeq(s[len(scheme):], "&") {
		name, value, ok := strings.Cut(pair, "=")
		if _, twice := fields[name]; !ok || twice {
			return Token{}, errors.New("has a field without = or twice")
		}
		fields[name] = value
	}
	t := Token{Resource: fields["sr"], se: fields["se"]}
	if t.Resource == "" {
		return Token{}, errors.New("has no sr")
	}
	if _, err := url.PathUnescape(t.Resource); err != nil {
		return Token{}, errors.New("has an sr that is badly encoded")
	}
	sig, err := url.PathUnescape(fields["sig"])
	if err == nil {
		t.Signature, err = base64.StdEncoding.DecodeString(sig)
	}
	if err != nil || len(t.Signature) != sha256.Size {
		return Token{}, errors.New("has a sig that is not 32 bytes in base64")
	}
	seconds, err := strconv.ParseUint(t.se, 10, 40) // to the year 36 812
	if err != nil {
		return Token{}, errors.New("has an se that is not in Unix seconds")
	}
	t.Expiry = time.Unix(int64(seconds), 0)
	if t.Policy, err = url.PathUnescape(fields["skn"]); err != nil {
		return Token{}, errors.New("has an skn that is badly encoded")
	}
	return t, nil
}

// Verify reports whether one of the keys, in base64, signed the token: an
// identity has two, so that one can be changed. It does not look at the expiry.
func (t Token) Verify(keys ...string) bool {
	good := false
	for _, key := range keys {
		k, err := decodeKey(key)
		if err != nil {
			continue // an identity without a secondary key
		}
		good = hmac.Equal(sign(k, t.Resource, t.se), t.Signature) || good
	}
	return good
}

// Covers reports whether the token is for resource or for something above it. The
// hub's name is compared without case; IDs are case-sensitive.
func (t Token) Covers(resource string) bool {
	sr, err := url.PathUnescape(t.Resource)
	if err != nil {
		return false
	}
	have, want := strings.Split(strings.TrimSuffix(sr, "/"), "/"), strings.Split(resource, "/")
	if len(have) > len(want) || !strings.EqualFold(have[0], want[0]) {
		return false
	}
	for i := 1; i < len(have); i++ {
		if have[i] != want[i] {
			return false
		}
	}
	return true
}

// String names the token without its signature.
func (t Token) String() string {
	return fmt.Sprintf("token{%s until %s}", t.Resource, t.Expiry.UTC().Format(time.RFC3339))
}

// Format keeps every verb of package fmt from printing the signature.
func (t Token) Format(f fmt.State, verb rune) { redacted(f, verb, t.String()) }

// MarshalText keeps JSON logs from printing the signature.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue keeps slog from printing the signature.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }
