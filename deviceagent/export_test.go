package deviceagent

import (
	"net/url"

	"websocketbridge/relay/session"
)

// MatchRelay says whether an entry of Config.RelayHosts allows a URL.
func MatchRelay(entry, rawURL string) (bool, error) {
	h, err := parseRelayHost(entry)
	if err != nil {
		return false, err
	}
	u, err := url.Parse(rawURL)
	return err == nil && h.match(u), nil
}

// MatchStars says whether a pattern of Config.Principals matches a name.
func MatchStars(pattern, name string) bool { return matchStars(pattern, name) }

// Windows is what the windows of all bridges may grow by.
func (a *Agent) Windows() *session.Budget { return a.cfg.Session.Budget }

// Remembered is how many signals the agent remembers.
func (a *Agent) Remembered() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}
