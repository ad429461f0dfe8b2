// Package lent hears signals on a connection that the host program has already:
// its *iotdevice.Client of github.com/amenzhinsky/iothub v0.9.1. A hub keeps one
// connection per identity, so an agent inside such a program borrows.
//
//	guard := new(lent.Guard)
//	client, err := iotdevice.NewFromConnectionString(mqtt.New(guard.Option()), cs)
//	…
//	source, err := lent.New(lent.Config{Client: client, Guard: guard})
//	agent, err := deviceagent.New(deviceagent.Config{DeviceID: client.DeviceID(), Source: source, …})
//
// The connection stays the host's: Run never opens, changes or closes it. The
// host's own messages, methods and twin work as before.
//
// # What is heard
//
//	method "Bridge"            the answer goes back: 200, or 409 and the refusal
//	message to the device      one with the property bridge-signal, or whose body is a signal
//
// Every subscriber of the library gets every message, so the host sees ours too
// and passes over what has the property. A message that is not ours stays the
// host's alone. Its body is looked at because the library loses properties that
// stand before the first system property of a topic.
//
// When Run ends it leaves the messages. The method stays registered and answers
// 503 "stopping" at once; without a handler the caller would wait in vain until
// its hub gives up. The next Run of the same Source goes on. For another Source
// on the same client call client.UnregisterMethod(lent.MethodName) first.
//
// # What the host has to do
//
//   - Make the transport with a Guard (Why, below), and let nothing replace what
//     Guard.Configure sets.
//   - Own a context that lives as long as the client for its own first
//     SubscribeEvents and RegisterMethod: the library keeps it for every later answer.
//   - Throw the client away when one of those calls fails, here or there: the
//     library does not subscribe again and says so to nobody. Run's error is
//     ErrDeaf then. A failure of the host's own call cannot be seen from here.
//   - Read its own subscriptions, always. The library hands a message to one
//     subscriber after the other and waits for each.
//   - Not give the client a nil logger: its first line would panic.
//
// With a Guard the host's handlers run at the same time, and messages may change
// places. A device ID with a percent sign loses its messages in the library, which
// decodes topics twice: use MethodsOnly there, and for a module, which the hub
// sends no messages: Config{Client: &module.Client, Listen: lent.MethodsOnly, …}.
//
// # Limits
//
//	64   signals wait for the agent; one more message is dropped, one more method answered 503
//	5 s  Run's end waits for a host that does not read; the rest of leaving ends with the client
//
// # Why
//
// Why a Guard: the library answers a method inside paho's ordered callback and
// waits there for the hub's acknowledgement. Any packet ahead of it blocks the
// reader for good: two methods within one round trip, and the client is dead and
// does not reconnect. An agent makes that happen daily. Nothing can be seen of it
// from outside before it happens, so Run refuses a client that was not made safe.
//
// Why Run waits for the Guard to see a connection: a first subscription while paho
// reconnects fails at once and leaves the client deaf.
//
// Why the context of Run is not the library's: it keeps the first one it gets. Once
// that has ended it takes every acknowledgement for a failure.
//
// Why the payload is encoded again: the library decodes it. Of a member that is
// there twice the last one counts, for this source only.
package lent
