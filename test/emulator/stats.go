package emulator

import "maps"

// Stats are counts since the hub was made.
type Stats struct {
	Connections     int            `json:"connections"`     // of devices and modules, now
	Connects        map[string]int `json:"connects"`        // by "device" or "device/module"
	ConnectsRefused int            `json:"connectsRefused"` // wrong token, certificate, identity; too many at once
	Takeovers       int            `json:"takeovers"`       // connections cut since the identity connected again
	Disconnects     int            `json:"disconnects"`     // ends of connections, of every kind

	MessagesAccepted  int `json:"messagesAccepted"` // cloud-to-device
	MessagesRejected  int `json:"messagesRejected"`
	MessagesCompleted int `json:"messagesCompleted"`
	MessagesRequeued  int `json:"messagesRequeued"` // sent, but neither settled in time nor before the connection ended
	MessagesExpired   int `json:"messagesExpired"`
	FeedbackRecords   int `json:"feedbackRecords"`

	Methods     map[string]int `json:"methods"`     // "answered", "gone" if the caller left, or the error's name
	AnswersLate int            `json:"answersLate"` // of methods that nobody waited for

	TokensPut     int `json:"tokensPut"` // by CBS
	TokensRefused int `json:"tokensRefused"`
	Throttled     int `json:"throttled"`
	Events        int `json:"events"` // telemetry

	SocketsOpen    int `json:"socketsOpen"`    // of all protocols, now
	SocketsRefused int `json:"socketsRefused"` // over MaxConnections
}

// Stats returns the counts.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Connects, s.Methods = maps.Clone(s.Connects), maps.Clone(s.Methods)
	for _, d := range h.devices {
		for r := range d.all {
			if r.link != nil {
				s.Connections++
			}
		}
	}
	s.SocketsOpen = len(h.sockets)
	return s
}

// count changes the counts.
func (h *Hub) count(f func(*Stats)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.stats)
}
