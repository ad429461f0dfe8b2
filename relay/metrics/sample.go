package metrics

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Sample is what a node can say of itself at any moment.
type Sample struct {
	Waiting, Joining, Open int   // bridges
	ToDevice, ToRequester  int64 // payload bytes since the start, those of open bridges among them
	DevicesStalled         int   // open bridges whose device leaves data unread
	RequestersStalled      int
	Forwards               int // bridges of other nodes that go through this one
	MaxBridges, MaxWaiting int
	Requests, Pending      int // being served, and connections without one
	Ready, Draining        bool
	DrainDeadline          time.Time         // zero: not draining
	Limits                 map[string]uint64 // refusals, by the limit's name
	Audit                  Audit
}

// Audit is how the audit log does; zero if there is none.
type Audit struct {
	Written, Lost, Suppressed uint64 // lines
	Failures                  uint64 // attempts to write that failed
	Failing                   bool
}

// sampler turns a Sample into metrics.
type sampler struct {
	sample func() Sample
	descs  map[string]*prometheus.Desc
}

var sampled = []struct{ name, help, label string }{
	{"relay_bridges", "Bridges, by state.", "state"},
	{"relay_bridges_limit", "Most bridges at once.", ""},
	{"relay_bridges_waiting_limit", "Most waiting bridges at once.", ""},
	{"relay_bridges_stalled", "Open bridges of which a side has left data unread for more than a second.", "side"},
	{"relay_bytes_total", "Payload bytes passed on, those of open bridges among them.", "direction"},
	{"relay_forwards", "Bridges of other nodes that go through this one.", ""},
	{"relay_requests", "Requests being served on the public listener.", ""},
	{"relay_pending_connections", "Connections of the public listener that wait for a request.", ""},
	{"relay_limit_refusals_total", "Refusals for a limit.", "limit"},
	{"relay_ready", "1: /readyz says that the node takes new bridges.", ""},
	{"relay_draining", "1: the node was told to stop.", ""},
	{"relay_drain_deadline_timestamp_seconds", "When open bridges are closed; 0: the node is not draining.", ""},
	{"relay_audit_lines_total", "Lines of the audit log.", "result"},
	{"relay_audit_failures_total", "Attempts to write the audit log that failed.", ""},
	{"relay_audit_failing", "1: the last attempt to write the audit log failed.", ""},
}

func descriptions() map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc)
	for _, s := range sampled {
		var labels []string
		if s.label != "" {
			labels = []string{s.label}
		}
		descs[s.name] = prometheus.NewDesc(s.name, s.help, labels, nil)
	}
	return descs
}

// Describe implements prometheus.Collector.
func (c sampler) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c sampler) Collect(to chan<- prometheus.Metric) {
	s := c.sample()
	send := func(kind prometheus.ValueType, name string, value float64, label ...string) {
		to <- prometheus.MustNewConstMetric(c.descs[name], kind, value, label...)
	}
	gauge := func(name string, value int, label ...string) {
		send(prometheus.GaugeValue, name, float64(value), label...)
	}
	counter := func(name string, value uint64, label ...string) {
		send(prometheus.CounterValue, name, float64(value), label...)
	}
	flag := func(name string, on bool) { gauge(name, map[bool]int{true: 1}[on]) }

	gauge("relay_bridges", s.Waiting, "waiting")
	gauge("relay_bridges", s.Joining, "joining")
	gauge("relay_bridges", s.Open, "open")
	gauge("relay_bridges_limit", s.MaxBridges)
	gauge("relay_bridges_waiting_limit", s.MaxWaiting)
	gauge("relay_bridges_stalled", s.DevicesStalled, "device")
	gauge("relay_bridges_stalled", s.RequestersStalled, "requester")
	counter("relay_bytes_total", uint64(s.ToDevice), "to_device")
	counter("relay_bytes_total", uint64(s.ToRequester), "to_requester")
	gauge("relay_forwards", s.Forwards)
	gauge("relay_requests", s.Requests)
	gauge("relay_pending_connections", s.Pending)
	for _, limit := range slices.Sorted(maps.Keys(s.Limits)) {
		counter("relay_limit_refusals_total", s.Limits[limit], limit)
	}
	flag("relay_ready", s.Ready)
	flag("relay_draining", s.Draining)
	deadline := 0.0
	if !s.DrainDeadline.IsZero() {
		deadline = float64(s.DrainDeadline.UnixMilli()) / 1000
	}
	send(prometheus.GaugeValue, "relay_drain_deadline_timestamp_seconds", deadline)
	counter("relay_audit_lines_total", s.Audit.Written, "written")
	counter("relay_audit_lines_total", s.Audit.Lost, "lost")
	counter("relay_audit_lines_total", s.Audit.Suppressed, "suppressed")
	counter("relay_audit_failures_total", s.Audit.Failures)
	flag("relay_audit_failing", s.Audit.Failing)
}
