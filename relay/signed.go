package relay

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/token"
	"websocketbridge/relay/wire"
)

const (
	signedPurpose = "signed URL" // of the MAC
	signedVersion = 1            // first byte of what is signed, and of the signature
	onceVersion   = 2            // the same of a URL that works once
	// expirationForm is what websocketbridge has in its URLs, .NET's round-trip form.
	expirationForm = "2006-01-02T15:04:05.0000000Z"
	expirationUnit = 100 * time.Nanosecond // of its last digit
	maxPrincipal   = 256                   // bytes of a name; that of an API key has 64
)

// A signedURL is what a signed URL says. doc.go has the format.
type signedURL struct {
	aim
	expires   time.Time
	principal string          // who asked for it
	once      string          // its ticket, if it works once
	asks      *auth.Principal // the same, while it is made
	permit    policy.Decision // that they may
}

// getSignedURL serves /bridge/getSignedUrl: who may connect gets a URL with which
// anybody may, for a while. The URL is a secret, so the log has what it is for only.
func (s *Server) getSignedURL(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		s.preflight(w, r)
		return
	}
	u, err := s.parseSigning(r)
	if err == nil {
		err = s.recordSigned(r.Context(), u, s.from(r))
	}
	about := []any{"device", clean(u.deviceID, wire.MaxDeviceID), "principal", u.principal, "target", clean(u.target, maxLogged), "from", s.from(r)}
	h := w.Header()
	s.shareWith(h, r)
	if err != nil {
		p := problem(nil, err)
		s.recordUnsigned(u, s.from(r), p)
		s.tell(slog.LevelInfo, "signed URL refused", p.Code, err, append(about, "reason", p.Code)...)
		if p.Code == wire.MethodNotAllowed {
			h.Set("Allow", http.MethodGet)
		}
		writeProblem(w, p)
		return
	}
	s.cfg.Logger.Info("signed URL made", append(about, "expires", u.expires.Format(time.RFC3339))...)
	full := *s.public.JoinPath(wire.PathConnectSigned)
	full.RawQuery = u.query(s.cfg.Keys)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, full.String()) // without a line's end, as websocketbridge has it
}

// parseSigning decides whether a URL is made, by the rules for who connects. What
// could be read is returned with an error, too, for the log.
func (s *Server) parseSigning(r *http.Request) (u signedURL, err error) {
	if r.Method != http.MethodGet {
		return u, errMethod
	}
	if s.cfg.MaxSignedTTL == 0 {
		return u, errSignedOff
	}
	q, err := parseQuery(r)
	if err != nil {
		return u, err
	}
	if u.aim, err = parseAim(q); err != nil {
		return u, err
	}
	if u.expires, err = parseExpiration(q); err != nil {
		return u, err
	}
	once, err := single(q, wire.ParamOnce)
	if err == nil && once != "" && once != "true" && once != "false" {
		err = badRequest("%s can only be true or false", wire.ParamOnce)
	}
	if err != nil {
		return u, err
	}
	p, err := s.authenticate(r, nil)
	if err != nil {
		return u, err
	}
	u.principal, u.asks = p.Name, p
	if err := s.origin(r, false); err != nil {
		return u, err
	}
	if u.permit, err = s.permit(p, u.aim, time.Now()); err != nil {
		return u, err
	}
	now := time.Now()
	switch ttl := u.expires.Sub(now); {
	case ttl <= 0 || ttl > s.cfg.MaxSignedTTL:
		return u, badRequest("%s has to be within %v from now, which is %s here", wire.ParamExpirationUTC, s.cfg.MaxSignedTTL, now.UTC().Format(time.RFC3339))
	case !p.Expires.IsZero() && u.expires.After(p.Expires):
		return u, badRequest("%s is later than the credentials expire, %s", wire.ParamExpirationUTC, p.Expires.UTC().Format(time.RFC3339))
	case p.Name == "" || len(p.Name) > maxPrincipal || !utf8.ValidString(p.Name):
		return u, fmt.Errorf("sign a URL: the principal's name has %d bytes; 1 to %d of UTF-8 are allowed", len(p.Name), maxPrincipal)
	}
	if once == "true" {
		u.once, err = s.newTicket(u.deviceID, u.expires)
	}
	return u, err
}

// parseExpiration takes RFC 3339 with any fraction, so also .NET's round-trip form.
func parseExpiration(q url.Values) (time.Time, error) {
	text, err := required(q, wire.ParamExpirationUTC)
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, badRequest("%s is no time in UTC, such as 2027-01-31T00:00:00Z", wire.ParamExpirationUTC)
	}
	return t.UTC().Truncate(expirationUnit), nil
}

func required(q url.Values, name string) (string, error) {
	value, err := single(q, name)
	if err == nil && value == "" {
		err = badRequest("%s is missing", name)
	}
	return value, err
}

// authenticateSigned says whose a signed URL is: of the principal that asked for it,
// and good for what it was asked for.
func (s *Server) authenticateSigned(r *http.Request, b *bridge) (*auth.Principal, error) {
	if s.cfg.MaxSignedTTL == 0 {
		return nil, errSignedOff
	}
	q, err := parseQuery(r)
	if err != nil {
		return nil, err
	}
	u, err := openSigned(s.cfg.Keys, q, time.Now())
	if err != nil {
		return nil, err
	}
	if u.once != "" {
		if err := s.takeTicket(b, u); err != nil {
			return nil, err
		}
	}
	return auth.Signed(u.principal, u.deviceID, u.targets(), u.expires), nil
}

// openSigned reads the query of a signed URL and checks that one of our keys has
// signed it and that it is not yet over.
func openSigned(keys *token.Ring, q url.Values, now time.Time) (u signedURL, err error) {
	if u.aim, err = parseAim(q); err != nil {
		return u, err
	}
	if u.expires, err = parseExpiration(q); err != nil {
		return u, err
	}
	if u.principal, err = required(q, wire.ParamPrincipal); err != nil {
		return u, err
	}
	if u.once, err = single(q, wire.ParamOnce); err != nil {
		return u, err
	}
	text, err := required(q, wire.ParamSignature)
	if err != nil {
		return u, err
	}
	sig, err := base64.RawURLEncoding.DecodeString(text)
	switch {
	case err != nil || len(sig) != 1+token.MACSize || base64.RawURLEncoding.EncodeToString(sig) != text: // decoding skips line ends
		return u, badRequest("%s is cut or changed", wire.ParamSignature)
	case sig[0] != u.version():
		return u, fmt.Errorf("%w: version %d", errSignature, sig[0])
	case q.Get(wire.ParamExpirationUTC) != u.expires.Format(expirationForm):
		return u, fmt.Errorf("%w: another form of %s", errSignature, wire.ParamExpirationUTC)
	}
	if err := keys.CheckMAC(signedPurpose, u.signed(), sig[1:]); err != nil {
		return u, fmt.Errorf("%w: %w", errSignature, err)
	}
	if !now.Before(u.expires) { // said only of what was good
		return u, fmt.Errorf("%w: at %s", errSignedExpired, u.expires.Format(time.RFC3339))
	}
	return u, nil
}

func (u signedURL) version() byte {
	if u.once != "" {
		return onceVersion
	}
	return signedVersion
}

// signed returns the bytes that the signature covers.
func (u signedURL) signed() []byte {
	b := []byte{u.version()}
	fields := []string{u.deviceID, u.target, u.requestData, u.expires.Format(expirationForm), u.principal}
	if u.once != "" {
		fields = append(fields, u.once)
	}
	for _, field := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

// query signs u and returns the query of its URL.
func (u signedURL) query(keys *token.Ring) string {
	sig := append([]byte{u.version()}, keys.MAC(signedPurpose, u.signed())...)
	q := url.Values{
		wire.ParamDeviceID: {u.deviceID}, wire.ParamExpirationUTC: {u.expires.Format(expirationForm)},
		wire.ParamPrincipal: {u.principal}, wire.ParamSignature: {base64.RawURLEncoding.EncodeToString(sig)},
	}
	if u.target != "" {
		q.Set(wire.ParamTarget, u.target)
	}
	if u.once != "" {
		q.Set(wire.ParamOnce, u.once)
	}
	if u.requestData != "" {
		q.Set(wire.ParamRequestData, u.requestData)
	}
	return q.Encode()
}
