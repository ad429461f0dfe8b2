// Package fake is a hub in memory that signals devices without Azure.
//
// It passes the suite of package signalertest in both modes, in one process and
// over its endpoint, so what works with it meets a real hub's behaviour.
//
// # Flow
//
// In one process, for tests and the quickstart:
//
//	hub := fake.New(fake.Config{})
//	go hub.Source("pump-7").Run(ctx, handle)   // the agent does this
//	hub.WaitOnline(ctx, "pump-7")
//	hub.Signal(ctx, s)                         // the relay does this
//
// In two, for a relay with RELAY_SIGNALER=fake:
//
//	relay:  hub.Serve(ctx, listener on 127.0.0.1:7071)
//	agent:  NewRemoteSource(RemoteConfig{URL: "ws://127.0.0.1:7071", DeviceID: "pump-7"}).Run(ctx, handle)
//
// # What it shares with IoT Hub
//
//   - Method mode: a device that does not listen is offline at once; the answer
//     has AnswerTimeout; late answers are passed over; a device that leaves in
//     the middle of a call makes it fail as offline.
//   - Message mode: taken for offline devices; at most QueueLength wait per
//     device, one more is throttled; dropped at the signal's expiry, or after
//     MessageLife; delivered again when the device left before it was done.
//   - One connection per device ID, and the newest wins.
//
// # Endpoint
//
// GET /signals?deviceId=pump-7 is a WebSocket of JSON texts, one message each.
// The hub sends deliveries, the signal in it byte for byte as it was encoded; the
// device answers each one, in any order:
//
//	hub     {"id":1,"answers":true,"signal":{"acceptUrl":"wss://…",…}}
//	device  {"id":1}
//	device  {"id":1,"refuse":{"code":"target_unknown","message":"no target \"ssh\""}}
//
// answers is absent in Message mode; there a refuse is passed over, and the
// answer means that the message is done. The hub sends the next message then.
// An answer with an unknown id came late and is passed over. Anything else ends
// the connection with 1008 and a reason. 4001 says that another connection of
// the device took over, 1001 that the hub stops. The hub pings every 15 s; either
// end gives up after 35 s without a frame.
//
// GET and PUT /faults read and replace Faults:
//
//	{"error":"throttled","retryAfter":"3s","hang":true,"refuse":{"code":"busy","message":"…"},
//	 "loseAll":true,"loseEvery":3,"loseNext":2,"delay":"250ms","duplicate":1,"reorder":true}
//
// GET /devices lists the known devices: [{"deviceId":"pump-7","online":true,"queued":0}].
//
// # Why
//
// Why only on a loopback address: there is no authentication, and a signal makes
// a device dial. Serve refuses other listeners, NewRemoteSource other hosts.
//
// Why 403 for any Origin, and for a Host that is not a loopback name: a page in
// the user's browser can connect to 127.0.0.1, and with DNS rebinding it can do
// so under a name of its own.
//
// Why a lost signal is not an error in Message mode: the hub took it, which is
// all that it says; nothing proves that a device read it.
//
// Why messages go out one by one: the order is kept, and what the queue counts is
// what the device has not done.
package fake
