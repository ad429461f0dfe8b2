package settings

import (
	"regexp"
	"strings"
)

// Kubernetes sets variables in every pod for every Service of its namespace,
// unless the pod says enableServiceLinks: false (Kubernetes documentation,
// "Service", "Environment variables"). For a Service named relay they are
// RELAY_SERVICE_HOST, RELAY_SERVICE_PORT, RELAY_SERVICE_PORT_<port name>,
// RELAY_PORT=tcp://10.0.0.11:443, RELAY_PORT_443_TCP and RELAY_PORT_443_TCP_PROTO,
// _PORT and _ADDR; for one named relay-admin, RELAY_ADMIN_SERVICE_HOST and so on.
// Nobody wrote them, so they are no typing errors, and a relay must not refuse to
// start because of what its Service is called. Nor may a setting have such a
// name: it would be set by accident.
var (
	serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	servicePort = regexp.MustCompile(`_PORT$`)
	serviceURL  = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// isServiceLink tells RELAY_PORT=tcp://10.0.0.11:443, by Kubernetes, from
// RELAY_PORT=8080, by somebody who expects it to do something.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || servicePort.MatchString(name) && serviceURL.MatchString(value)
}

// mayBeServiceLink reports whether Kubernetes could set a variable of this name.
func mayBeServiceLink(name string) bool {
	return serviceLink.MatchString(name) || servicePort.MatchString(name)
}

// nearest returns the name that somebody who wrote name most likely meant, or
// nothing: with a third of the letters wrong, not counting the prefix that all
// have, it is another word.
func nearest(prefix, name string, names []string) string {
	if len(name) > maxShown { // nobody's typing error, and distance is quadratic
		return ""
	}
	wrong := strings.ToUpper(name[len(prefix):])
	best, bestAt := "", max(1, len(wrong)/3)+1
	for _, n := range names {
		if d := distance(wrong, n[len(prefix):]); d < bestAt {
			best, bestAt = n, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace, or swap with their
// neighbour to make b of a (Damerau and Levenshtein's, restricted).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
