// Package metrics is what a node tells Prometheus.
//
// A Node has a registry of its own, so that several fit in one process. What happens is
// counted by its methods; what is, a Sample says at each scrape. Nothing is counted
// while bytes flow: those of open bridges are read from their pumps.
//
// Labels have few values, all known beforehand: codes of package wire, paths, limits,
// settings. Who or what a bridge is for is in the log and in traces. All that can be
// told is there from the start, as zero, so that a rate has a beginning and an
// alert finds its series.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"websocketbridge/relay/wire"
)

// Stages of a handshake, one after the other.
const (
	StageAdmit    = "admit"     // from the request to the signal: credentials, policy, limits
	StageSignal   = "signal"    // until the hub, or the device where it answers, has taken the signal
	StageDialBack = "dial_back" // until the device has come; 0 if it came before the hub had answered
	StageJoin     = "join"      // until both 101s are out
)

// Results of a signal. All but the first and the last are errors of package signaler.
const (
	SignalAccepted     = "accepted"
	SignalNotFound     = "device_not_found"
	SignalOffline      = "device_offline"
	SignalRefused      = "refused"
	SignalTimedOut     = "timed_out"
	SignalThrottled    = "throttled"
	SignalUnauthorized = "unauthorized"
	SignalNotSupported = "not_supported"
	SignalTooBig       = "too_big"
	SignalUnavailable  = "unavailable"
	SignalFailed       = "failed"    // by an error that is none of these
	SignalAbandoned    = "abandoned" // the device had come, or the requester left, before the hub answered
)

// Reasons why a device's token is not taken.
const (
	TokenMalformed = "malformed"
	TokenForged    = "forged"  // or sealed with a key that this node does not have
	TokenExpired   = "expired" // good, and too late
	TokenGone      = "gone"    // used, or its requester left, or its node has restarted
	TokenForeign   = "foreign" // it names a node that is no peer
)

// Results of what is passed on to another node.
const (
	ForwardJoined   = "joined"
	ForwardAnswered = "answered" // the owner has said no, or taken a device's no
	ForwardFailed   = "failed"   // no answer, or nobody to give it to
)

// Results of a look at files.
const (
	ReloadDone     = "reloaded"
	ReloadFailed   = "failed"
	ReloadRestored = "restored" // after a fault: what is in force is in the file again
)

var (
	stages  = []string{StageAdmit, StageSignal, StageDialBack, StageJoin}
	signals = []string{SignalAccepted, SignalNotFound, SignalOffline, SignalRefused, SignalTimedOut, SignalThrottled, SignalUnauthorized,
		SignalNotSupported, SignalTooBig, SignalUnavailable, SignalFailed, SignalAbandoned}
	tokens   = []string{TokenMalformed, TokenForged, TokenExpired, TokenGone, TokenForeign}
	forwards = []string{ForwardJoined, ForwardAnswered, ForwardFailed}
	reloads  = []string{ReloadDone, ReloadFailed, ReloadRestored}
)

// buckets reach from a device on the same machine to relay.MaxDialBack, and have the
// default dial-back, 15 s, as a border.
var buckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 60}

// A Node counts what happens on one node. Its methods may be called from many goroutines.
type Node struct {
	registry *prometheus.Registry

	refused, closed, signals, tokens, forwards, reloads *prometheus.CounterVec
	opened, received, moved, panics                     prometheus.Counter
	handshake                                           prometheus.Histogram
	stages                                              *prometheus.HistogramVec
	faulty                                              *prometheus.GaugeVec
}

// New returns the metrics of a node of this version; sample is called at each scrape.
func New(version string, sample func() Sample) *Node {
	r := prometheus.NewRegistry()
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	n := &Node{
		registry: r,
		refused:  counters("relay_refused_total", "Requests refused, by path and code.", "path", "code"),
		opened:   counter("relay_bridges_opened_total", "Bridges that opened."),
		closed:   counters("relay_bridges_closed_total", "Open bridges that ended, by code and by who ended them.", "code", "by"),
		signals:  counters("relay_signals_total", "Signals to devices, by what became of them at the hub.", "result"),
		tokens:   counters("relay_token_rejects_total", "Bridge tokens of devices that were not taken.", "reason"),
		forwards: counters("relay_forwards_out_total", "Requests of devices and requesters passed on to the node that owns the bridge.", "result"),
		received: counter("relay_forwards_in_total", "Requests of devices and requesters that another node passed on to this one."),
		moved:    counter("relay_drain_moves_total", "Requesters asked to move to another node."),
		panics:   counter("relay_panics_total", "Requests and signals that ended in a panic, which is a bug."),
		reloads:  counters("relay_reloads_total", "Looks at files of a setting that had something to tell.", "setting", "result"),
		handshake: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "relay_handshake_seconds", Help: "From a requester's request to the open bridge, of those that open.", Buckets: buckets,
		}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "relay_handshake_stage_seconds", Help: "Stages of a handshake: those of bridges that open, and signal of each that the hub took.", Buckets: buckets,
		}, []string{"stage"}),
		faulty: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "relay_reload_faulty", Help: "1: the files of a setting hold something that cannot be put in force; what was before stays.",
		}, []string{"setting"}),
	}
	r.MustRegister(n.handshake, n.stages, n.faulty, sampler{sample, descriptions()},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "relay_build_info", Help: "1, with the version as labels."}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(build)
	n.zero()
	return n
}

// zero makes every series that is known beforehand.
func (n *Node) zero() {
	each := func(v *prometheus.CounterVec, values []string) {
		for _, value := range values {
			v.WithLabelValues(value)
		}
	}
	each(n.signals, signals)
	each(n.tokens, tokens)
	each(n.forwards, forwards)
	for _, stage := range stages {
		n.stages.WithLabelValues(stage)
	}
	for _, o := range wire.Outcomes() {
		if o.Status != 0 {
			n.refused.WithLabelValues(wire.PathConnect, string(o.Code))
		}
	}
	for _, by := range []string{"requester", "device"} {
		for _, code := range []wire.Code{wire.Done, wire.PeerLost, wire.PeerDead, wire.ProtocolErr} {
			n.closed.WithLabelValues(string(code), by)
		}
	}
	for _, code := range []wire.Code{wire.IdleTimeout, wire.MaxDuration, wire.MaxBytes, wire.Killed, wire.PermissionRevoked, wire.Draining, wire.Internal} {
		n.closed.WithLabelValues(string(code), "relay")
	}
}

// Handler serves the metrics.
func (n *Node) Handler() http.Handler {
	return promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{})
}

// Refused counts a request on a path of package wire that was refused.
func (n *Node) Refused(path string, code wire.Code) {
	n.refused.WithLabelValues(path, string(code)).Inc()
}

// A Handshake is how long one took, as a whole and stage by stage.
type Handshake struct{ Total, Admit, DialBack, Join time.Duration }

// Opened counts a bridge that opened.
func (n *Node) Opened(h Handshake) {
	n.opened.Inc()
	n.handshake.Observe(h.Total.Seconds())
	n.stages.WithLabelValues(StageAdmit).Observe(h.Admit.Seconds())
	n.stages.WithLabelValues(StageDialBack).Observe(h.DialBack.Seconds())
	n.stages.WithLabelValues(StageJoin).Observe(h.Join.Seconds())
}

// Closed counts the end of an open bridge; by is a side of package pump.
func (n *Node) Closed(code wire.Code, by string) { n.closed.WithLabelValues(string(code), by).Inc() }

// Signalled counts a signal.
func (n *Node) Signalled(result string, took time.Duration) {
	n.signals.WithLabelValues(result).Inc()
	if result == SignalAccepted {
		n.stages.WithLabelValues(StageSignal).Observe(took.Seconds())
	}
}

// BadToken counts a token that was not taken.
func (n *Node) BadToken(reason string) { n.tokens.WithLabelValues(reason).Inc() }

// ForwardedOut counts what was passed on to another node.
func (n *Node) ForwardedOut(result string) { n.forwards.WithLabelValues(result).Inc() }

// ForwardedIn counts what another node has passed on.
func (n *Node) ForwardedIn() { n.received.Inc() }

// Moved counts a requester that was asked to move.
func (n *Node) Moved() { n.moved.Inc() }

// Panicked counts a panic.
func (n *Node) Panicked() { n.panics.Inc() }

// Watch makes the series of a setting whose files are looked at.
func (n *Node) Watch(setting string) {
	n.faulty.WithLabelValues(setting)
	for _, result := range reloads {
		n.reloads.WithLabelValues(setting, result)
	}
}

// Reloaded counts what a look at a setting's files has found.
func (n *Node) Reloaded(setting, result string) {
	n.reloads.WithLabelValues(setting, result).Inc()
	faulty := 0.0
	if result == ReloadFailed {
		faulty = 1
	}
	n.faulty.WithLabelValues(setting).Set(faulty)
}
