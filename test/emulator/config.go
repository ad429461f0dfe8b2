package emulator

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
)

// Config of a Hub. The zero Config is an S1 hub named localhost with one unit and
// no devices, on free ports of 127.0.0.1.
type Config struct {
	HostName  string // in certificates, connection strings and what tokens are for; "": localhost
	MQTTAddr  string // where it listens for MQTT over TLS; "": 127.0.0.1:0
	AMQPAddr  string // for AMQP over TLS; "": 127.0.0.1:0
	HTTPSAddr string // for REST, and for MQTT and AMQP over WebSocket; "": 127.0.0.1:0
	AdminAddr string // for the admin API: plain HTTP, so a loopback address; "": none

	Devices    []Device          // the hub knows to begin with
	PolicyKeys map[string]string // base64 keys of the service policies; a policy without one gets a random key

	Tier          Tier          // zero: S1
	Units         int           // 0: 1
	Throttle      bool          // keep to the tier's rates and its daily quota
	ThrottleBurst time.Duration // how much of a rate passes at once; 0: 60 s worth of it, negative: one operation
	ThrottleQueue time.Duration // how long an operation waits before the hub refuses it; 0: 10 s, negative: not at all
	RetryAfter    time.Duration // said with 429; 0: the header is left out

	MessageLife   time.Duration // of a message without an expiry; 0: 1 h
	MessageLock   time.Duration // until a message that was sent but not settled is queued again; 0: 60 s
	MaxDeliveries int           // abandoned so many times, a message is dropped; 0: 10
	MessageQueue  int           // messages per device; 0: 50
	FeedbackEvery time.Duration // between batches; 0: 15 s
	FeedbackLife  time.Duration // of a batch; 0: 1 h
	FeedbackLock  time.Duration // until a batch that was sent but not settled is queued again; 0: 60 s

	TokenGrace         time.Duration // a connection lives on after its token expired; 0: 10 min, negative: not at all
	ModuleMessages     bool          // modules take cloud-to-device messages too, which IoT Hub does not support
	MaxMethodsInFlight int           // calls at once to one device or module; 0: no limit, since IoT Hub's is not known
	EscapedTwice       bool          // tokens are good whose resource was escaped twice, as amenzhinsky/iothub does for modules; whether IoT Hub takes them is not known
	ConnectionStateLag time.Duration // REST shows a connectionState that is this old; 0: none

	// Bearer checks a token of Entra ID, without "Bearer ". It returns when the
	// token expires, and whether it is good. nil: only BearerTokens are.
	Bearer       func(jwt string) (expiry time.Time, ok bool)
	BearerTokens []string       // good for ever; for tests
	DeviceCAs    *x509.CertPool // sign certificates of devices with CertificateAuthority; nil: none is good

	MaxConnections   int           // at once, of all protocols; 0: 20 000
	HandshakeTimeout time.Duration // for TLS, and for the protocol to say who it is; 0: 10 s
	EventLog         int           // telemetry events kept; 0: 1000

	Faults Faults       // to begin with
	Logger *slog.Logger // nil: silent
}

// Limits of IoT Hub; see doc.go.
const (
	maxMessage        = 64 << 10 // bytes of a cloud-to-device message
	maxMessageLife    = 48 * time.Hour
	maxMethod         = 128 << 10 // bytes of a method's payload, each way
	maxTwinSection    = 32 << 10  // bytes of tags, desired or reported
	maxModules        = 50        // of a device
	maxEvent          = 256 << 10 // bytes of a telemetry event
	feedbackBatchSize = 64        // records
)

// withDefaults checks c and fills in what is zero. Every fault is reported.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	c.HostName = cmp.Or(c.HostName, "localhost")
	if strings.ContainsAny(c.HostName, ":/?#@; \t\r\n") {
		bad("HostName %q is not a host's name", c.HostName)
	}
	c.MQTTAddr = cmp.Or(c.MQTTAddr, "127.0.0.1:0")
	c.AMQPAddr = cmp.Or(c.AMQPAddr, "127.0.0.1:0")
	c.HTTPSAddr = cmp.Or(c.HTTPSAddr, "127.0.0.1:0")
	if c.AdminAddr != "" {
		if host, _, err := net.SplitHostPort(c.AdminAddr); err != nil || !loopbackName(host) {
			bad("AdminAddr %q is not a loopback address with a port, such as 127.0.0.1:7072; the admin API has no authentication", c.AdminAddr)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.PolicyKeys)) {
		if _, ok := policyRights[name]; !ok {
			bad("PolicyKeys: there is no policy %q; there are %s", name, strings.Join(policyNames, ", "))
		} else if !goodKey(c.PolicyKeys[name]) {
			bad("PolicyKeys: the key of %s is not base64", name)
		}
	}
	if c.Units == 0 {
		c.Units = 1
	}
	if _, ok := tiers[c.Tier]; !ok {
		bad("Tier %d is not known", int(c.Tier))
	}
	if c.Units < 0 || c.Units > 200 || c.Tier == Free && c.Units > 1 || c.Tier == S3 && c.Units > 10 {
		bad("Units is %d; a free hub has 1, S3 at most 10, the others at most 200", c.Units)
	}
	for name, n := range map[string]int{
		"MaxDeliveries": c.MaxDeliveries, "MessageQueue": c.MessageQueue, "MaxMethodsInFlight": c.MaxMethodsInFlight,
		"MaxConnections": c.MaxConnections, "EventLog": c.EventLog,
	} {
		if n < 0 {
			bad("%s is negative", name)
		}
	}
	for name, d := range map[string]time.Duration{
		"MessageLife": c.MessageLife, "MessageLock": c.MessageLock, "FeedbackEvery": c.FeedbackEvery, "FeedbackLife": c.FeedbackLife,
		"FeedbackLock": c.FeedbackLock, "ConnectionStateLag": c.ConnectionStateLag, "HandshakeTimeout": c.HandshakeTimeout, "RetryAfter": c.RetryAfter,
	} {
		if d < 0 {
			bad("%s is negative", name)
		}
	}
	if c.MessageLife > maxMessageLife {
		bad("MessageLife is %v; %v is the most", c.MessageLife, maxMessageLife)
	}
	if err := c.Faults.Validate(); err != nil {
		bad("Faults: %w", err)
	}

	c.MessageLife = cmp.Or(c.MessageLife, time.Hour)
	c.MessageLock = cmp.Or(c.MessageLock, time.Minute)
	c.MaxDeliveries = cmp.Or(c.MaxDeliveries, 10)
	c.MessageQueue = cmp.Or(c.MessageQueue, 50)
	c.FeedbackEvery = cmp.Or(c.FeedbackEvery, 15*time.Second)
	c.FeedbackLife = cmp.Or(c.FeedbackLife, time.Hour)
	c.FeedbackLock = cmp.Or(c.FeedbackLock, time.Minute)
	c.ThrottleBurst = orNone(c.ThrottleBurst, time.Minute)
	c.ThrottleQueue = orNone(c.ThrottleQueue, 10*time.Second)
	c.TokenGrace = orNone(c.TokenGrace, 10*time.Minute)
	c.MaxConnections = cmp.Or(c.MaxConnections, 20_000)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 10*time.Second)
	c.EventLog = cmp.Or(c.EventLog, 1000)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

// orNone is d, with 0 for the default and negative for none.
func orNone(d, def time.Duration) time.Duration { return max(cmp.Or(d, def), 0) }

func loopbackName(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
