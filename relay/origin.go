package relay

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"websocketbridge/relay/wire"
)

// An origin is that of web pages which may use the relay (RFC 6454): a scheme and a host
// with its port, or any host below one.
type origin struct {
	scheme, host string
	below        bool // host begins with a dot
}

// parseOrigins reads Config.Origins, and says everything that is wrong with it.
func parseOrigins(list []string) (out []origin, err error) {
	var faults []error
	for _, item := range list {
		o, ok := parseOrigin(item)
		if rest, wild := strings.CutPrefix(o.host, "*."); ok && wild {
			o.host, o.below = "."+rest, true
		}
		if !ok || strings.Contains(o.host, "*") || o.host == "." {
			faults = append(faults, fmt.Errorf("%.60q is no origin, as https://app.example.com or https://*.example.com", item))
			continue
		}
		out = append(out, o)
	}
	return out, errors.Join(faults...)
}

// parseOrigin reads what a browser sends: a scheme, a host and perhaps a port, which
// is not the scheme's own. "null" is no origin: every page can have it.
func parseOrigin(s string) (origin, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#") {
		return origin{}, false
	}
	return origin{scheme: u.Scheme, host: withoutPort(u.Scheme, strings.ToLower(u.Host))}, true
}

// withoutPort is host without the port that the scheme has anyway.
func withoutPort(scheme, host string) string {
	port := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return strings.TrimSuffix(strings.TrimSuffix(host, port), ":")
}

func (o origin) matches(page origin) bool {
	if o.scheme != page.scheme {
		return false
	}
	if !o.below {
		return o.host == page.host
	}
	return len(page.host) > len(o.host) && strings.HasSuffix(page.host, o.host)
}

// origin keeps web pages of other sites from using a browser's credentials
// (RFC 6455 section 10.2). Only browsers send the header. A page of the relay's own has
// the host of the public URL, or that which a trusted proxy passes on, or an address of
// the relay; pages elsewhere are welcome if Config.Origins says so.
//
// A signed URL is welcome from any page: the page itself has to know it, nothing that
// the browser would add on its own counts, and to be used by pages is its purpose.
func (s *Server) origin(r *http.Request, signed bool) error {
	text := r.Header.Get("Origin")
	if text == "" || signed {
		return nil
	}
	page, ok := parseOrigin(text)
	if ok && (s.ownHost(r, page) || slices.ContainsFunc(s.origins, func(o origin) bool { return o.matches(page) })) {
		return nil
	}
	if !ok {
		return fmt.Errorf("%w, with the origin %q", errOrigin, clean(text, 60))
	}
	return fmt.Errorf("%w, %s://%s; whoever runs the relay can allow it with RELAY_ORIGINS", errOrigin, page.scheme, clean(page.host, 100))
}

// ownHost says whether page is of the relay's own host. What Host says counts for nothing
// if it is a name: anybody's can be made to mean this machine once their page is loaded
// (DNS rebinding), and the browser sends it as the page's host, too.
func (s *Server) ownHost(r *http.Request, page origin) bool {
	own := append(s.forwardedHosts(r), s.public.Host)
	if isAddress(r.Host) {
		own = append(own, r.Host)
	}
	return slices.ContainsFunc(own, func(host string) bool {
		return host != "" && withoutPort(page.scheme, strings.ToLower(host)) == page.host
	})
}

// isAddress says whether host, with a port or without, is no name that somebody else
// could say where it leads to: an IP address, or localhost (RFC 6761 section 6.3).
func isAddress(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

// shareWith lets a page of an allowed origin read the answer, whatever it is. What the
// browser would add on its own, cookies and client certificates, it does not send then.
func (s *Server) shareWith(h http.Header, r *http.Request) {
	h.Add("Vary", "Origin")
	page := r.Header.Get("Origin")
	if page == "" || s.origin(r, false) != nil {
		return
	}
	h.Set("Access-Control-Allow-Origin", page)
	h.Set("Access-Control-Expose-Headers", "Retry-After")
}

// preflight answers a browser that asks, on behalf of a page, whether it may send
// credentials in a header. It does so without any.
func (s *Server) preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	s.shareWith(h, r)
	if err := s.origin(r, false); err != nil {
		writeProblem(w, problem(nil, err))
		return
	}
	h.Set("Allow", http.MethodGet+", "+http.MethodOptions)
	if r.Header.Get("Origin") != "" {
		h.Set("Access-Control-Allow-Methods", http.MethodGet)
		h.Set("Access-Control-Allow-Headers", "Authorization, "+wire.HeaderAPIKey)
		h.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
}
