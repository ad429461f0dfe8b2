// Package emulator is an IoT Hub in memory: MQTT, AMQP and REST over TLS as IoT
// Hub speaks them, for Microsoft's SDKs, for other people's and for ours, none of
// which has to know. Command emulator runs it in a process of its own.
//
// # Picture
//
//	devices, modules                              services
//	      │                                           │
//	MQTT :8883     WebSocket :443            AMQP :5671     REST :443
//	      │        mqtt │ AMQPWSB10               │             │
//	      ▼             ▼       ▼                 ▼             │
//	┌── test/emulator/mqtt ─┐ ┌── test/emulator/amqp ──┐        │     codecs, no hub
//	└───────────┬───────────┘ └───────────┬────────────┘        │
//	   mqtt*.go │ deviceLink     amqp*.go │                     │     glue
//	            ▼                         ▼                     ▼
//	┌ Hub ──────────────────────────────────────────────────────────┐
//	│ record: identity, keys, twin, queue of messages               │
//	│ attachment: its one connection, locks, calls in flight        │
//	│ feedback, telemetry, rates and quota, faults, alarms          │
//	└────────────────────────────────▲──────────────────────────────┘
//	                                 │ plain HTTP, loopback only
//	                             admin API: faults, actions, telemetry
//
//	hub, err := emulator.New(emulator.Config{Devices: []emulator.Device{{ID: "pump-7"}}})   // listens
//	go hub.Run(ctx)                                                                          // serves
//	device, err := hub.DeviceConnectionString("pump-7")    // for the device's program,
//	service := hub.ServiceConnectionString("service")      // for the service's,
//	pool := hub.RootCAs()                                  // and what both have to trust
//	err = hub.WaitListening(ctx, "pump-7", "", emulator.ListenMethods)
//
// # What it does as IoT Hub does
//
// Names in brackets are pages of Microsoft Learn's IoT Hub documentation.
//
//   - Identities [Understand the identity registry]: devices, each with up to 50
//     modules; keys made where none is given; etag, generationId, enabled and
//     disabled; SHA-1 and SHA-256 thumbprints, and certificates of a CA.
//     connectionState may lag (Config.ConnectionStateLag).
//   - Tokens [Control access with shared access signatures]: checked over the
//     resource as it was sent, by whole segments, with either key, or a policy's
//     key and right. A token for the whole hub is good if a device's key signed
//     it. A connection is cut when its token expired and 10 minutes more are over.
//     Entra ID tokens are for services only (Config.Bearer).
//   - One connection per identity, MQTT or AMQP [Use MQTT to communicate with IoT
//     Hub]: a new one cuts the old one without a reason. Device and modules do
//     not touch each other.
//   - Cloud-to-device messages [Understand cloud-to-device messaging]: taken for
//     devices that are offline; 50 per device, 64 KB, an hour unless they say
//     otherwise and two days at most; a lock of 60 s that does not raise the
//     delivery count; 10 deliveries; purge. Messages are delivered at least once.
//   - Feedback on them, where iothub-ack asks: in batches of 64, or every 15 s;
//     one queue, for whose batches readers compete.
//   - Direct methods [Understand direct methods]: 404103 at once for a device
//     that does not listen, unless connectTimeoutInSeconds lets it come; 504101;
//     5 to 300 s; 128 KB each way; 400027 for calls in flight on a connection
//     that was taken over, 404104 on one that ended.
//   - Twins [Understand device twins]: tags, desired and reported properties,
//     versions, merge patches, 32 KB a section; desired changes are pushed.
//   - REST with its errors [IoT Hub REST; Troubleshoot error codes] in both forms
//     that were seen, with the header iothub-errorcode.
//   - Tiers [Quotas and throttling; pricing]: Basic refuses messages to devices,
//     methods, twins and modules with 403010. With Config.Throttle a rate is
//     shaped: a burst passes, then latency grows, then 429; and the day's
//     messages are counted, with 403002 until midnight UTC.
//
// # What is not known of IoT Hub, and settled here
//
//   - How much of a burst passes, and how long it is queued: a minute's worth,
//     and 10 s (Config.ThrottleBurst, ThrottleQueue). Retry-After: not said
//     (Config.RetryAfter).
//   - Calls in flight per device: no limit (Config.MaxMethodsInFlight).
//   - Which error a method has in the Basic tier: 403010
//     OperationNotAvailableInCurrentTier, which the page of error codes lists.
//   - Whether a device that stays connected gets a message again whose lock ended:
//     yes.
//   - When a connection ends, what it had not settled is queued again at once.
//   - The clock of feedback batches ticks while there is nothing to say, so a lone
//     record waits for up to 15 s.
//   - Without If-Match, DELETE deletes and a change of a twin is made. An update
//     without keys keeps those that are there.
//   - A hub that stops cuts connections as it does when they are taken over.
//
// # What it does not do
//
// Jobs, configurations, bulk registry operations, digital twins, file upload,
// device streams, Event Hubs and routing, IP filters, IoT Edge, DPS, failover,
// twins over AMQP, telemetry and messages over HTTPS for devices. Queries are
// SELECT * FROM devices or devices.modules, with =, != and AND; they do not lag
// behind writes. Nothing is stored: a hub ends with its process.
//
// # Admin API
//
// Plain HTTP on Config.AdminAddr, a loopback address: it has no authentication.
//
//	GET  /faults       Faults
//	PUT  /faults       replaces them: {"method":{"error":"throttled","every":3},"mqtt":{"cut":{"nth":2}}}
//	POST /actions      an Action, once, now: {"do":"detach","condition":"amqp:link:detach-forced"}
//	POST /disconnect   ?device=pump-7&module=bridge cuts a connection; without device, all of them
//	GET  /devices      what is connected, what it listens for, what is queued
//	GET  /stats        Stats
//	GET  /events       telemetry; ?after=7 what came after event 7; ?follow=1 as JSON lines, without end
//
// # Limits of its own
//
// 20 000 connections at once (Config.MaxConnections); 10 s for TLS and for the
// protocol to say who it is (Config.HandshakeTimeout); 512 KB for a request of
// REST; 1000 telemetry events and 32 MB of them (Config.EventLog); 1000 feedback
// batches. A peer that sends garbage, or nothing, loses its connection and leaves
// nothing behind: TestGarbage and TestSilence.
//
// # Why
//
// Why one lock for the hub, held while links are called: deliver, complete, a
// takeover and an expiry then happen one after the other, and what a test counts
// is what happened. A link queues what it is given, so nobody waits for a network
// with the lock held.
//
// Why one goroutine for all alarms: each expiry is a timer that somebody owns,
// that runs in testing/synctest, and that is gone when Run is.
//
// Why a private CA at each start: a key that is in the tree would be trusted by
// somebody, some day. New makes it, nothing keeps it.
//
// Why the admin API refuses any Origin, and a Host that is not a loopback name: a
// page in the user's browser can connect to 127.0.0.1, and with DNS rebinding it
// can do so under a name of its own.
//
// Why faults that do nothing, or have a misspelt name, are refused: a test that
// waits for one would pass for the wrong reason.
//
// Why keys are printed by command emulator: they open this hub and nothing else,
// and it is gone with them.
package emulator
