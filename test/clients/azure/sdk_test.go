//go:build clients

package azure

import (
	"strings"
	"sync"
	"testing"
	"time"

	"websocketbridge/test/emulator"
)

// quick is a hub as it comes, but for the 15 s between batches of feedback.
func quick() emulator.Config { return emulator.Config{FeedbackEvery: 200 * time.Millisecond} }

// faults parses what the emulator's command takes with --faults.
func faults(t *testing.T, s string) emulator.Faults {
	t.Helper()
	f, err := emulator.ParseFaults([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSDK(t *testing.T) {
	testSubjects(t, quick(),
		"c2d Mqtt Amqp", "c2d MqttWs AmqpWs", "c2d Amqp Amqp", "c2d AmqpWs AmqpWs",
		"methods Mqtt", "methods MqttWs", "methods Amqp",
		"feedback Amqp; feedback AmqpWs", // one queue of feedback, so one reader
		"registry", "twin Mqtt", "events Mqtt", "events MqttWs", "events AmqpWs", "takeover Mqtt", "takeover Amqp",
		"access Mqtt Amqp", "access MqttWs AmqpWs",
	)
}

// TestSDKOddHub is the same with a hub that does what hubs have been seen to do:
// Gateway v2 leaves next-incoming-id out of FLOW, methods come with QoS 1, the
// sender's properties come first, and errors have the old form.
func TestSDKOddHub(t *testing.T) {
	cfg := quick()
	cfg.Faults = faults(t, `{"errorForm":"old","amqp":{"flowWithoutNextIncomingId":true,"sasl":"refused"},"mqtt":{"methodQoS":1,"propertiesFirst":true}}`)
	testSubjects(t, cfg, "c2d Mqtt Amqp", "c2d Amqp AmqpWs", "feedback AmqpWs", "methods Mqtt")
}

// testSubjects runs subjects next to each other, those of one line in turn. Each
// uses devices of its own, and mostly waits.
func testSubjects(t *testing.T, cfg emulator.Config, lines ...string) {
	h := newHub(t, cfg)
	w := h.world(t)
	outcomes := make([][]outcome, len(lines))
	var wg sync.WaitGroup
	four := make(chan struct{}, 4)
	for i, line := range lines {
		wg.Go(func() {
			four <- struct{}{}
			defer func() { <-four }()
			for run := range strings.SplitSeq(line, "; ") {
				words := strings.Fields(run)
				outcomes[i] = append(outcomes[i], runSubject(w, h.caFile, words[0], words[1:]...))
			}
		})
	}
	wg.Wait()
	for i, line := range lines {
		t.Run(line, func(t *testing.T) {
			for _, o := range outcomes[i] {
				o.report(t)
			}
		})
	}
}

// TestSDKThrottled: a hub that keeps to its rates, and lets nothing wait.
func TestSDKThrottled(t *testing.T) {
	cfg := quick()
	cfg.Throttle, cfg.ThrottleBurst, cfg.ThrottleQueue = true, -1, -1
	h := newHub(t, cfg)
	subject(t, h.world(t), h.caFile, "throttled")
}

// TestSDKFaults: what the SDKs call a hub's errors, and how they get over them.
func TestSDKFaults(t *testing.T) {
	h := newHub(t, quick())
	subject(t, h.world(t), h.caFile, "faults")
}
