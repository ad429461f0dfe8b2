// Package azure holds only tests: Microsoft's own IoT Hub SDKs for Node.js, as
// they come from the registry, against the emulator of test/emulator, and against
// this project on top of it. What they see there is what an emulator has to be
// right about; and a device that was written with them has to be able to bridge,
// or to live next to our agent.
//
//	go test -count=1 -tags clients ./test/clients/azure
//
// The SDKs dial fixed ports: 8883 for MQTT, 5671 for AMQP, 443 for REST and both
// WebSockets. So the emulator listens there, on 127.0.0.77, and that needs root,
// or net.ipv4.ip_unprivileged_port_start=443; without, the tests fail and say so.
// Two runs at once get in each other's way, and wait.
//
// The connection strings hold a name, hub.azure.test. node/names.cjs gives it its
// address inside of node, which a line in the hosts file would do elsewhere. The
// SDKs trust the emulator's CA by NODE_EXTRA_CA_CERTS, the only way that
// azure-iothub has.
//
// node/SUBJECT.mjs are the tests of a subject, which run side by side in one
// process and are subtests here. node/lib.mjs is what they share. The emulator's
// admin API tells them what no SDK can: events, connections.
//
// # What the SDKs for Node.js do
//
// It is here since each of these decides something in the emulator or in the
// relay; a test shows it.
//
//   - Renewing a token over MQTT, after 45 minutes, is a new connection on which
//     the SDK subscribes to nothing. A hub that kept only the subscription to
//     messages would leave the device deaf to methods (see also Azure/iotedge
//     pull request 3214).
//   - The device sends the correlation-id of a method's request, which is 16
//     random bytes, back as text if they are no UUID of a version that it knows.
//   - A device over MQTT reads a property without a value, which is null, as the
//     word undefined, and the wish for feedback, iothub-ack, as a property.
//   - A device over AMQP is there for the hub when it attaches its first link,
//     which is when the program first listens or sends.
//   - There, close() never returns if it is called while a link is being attached.
//   - The first connection of a device over MQTT fails with "Not authorized",
//     whatever the reason; if the hub refused it, "Connection refused: Not
//     authorized" stands behind it.
//   - A method's answer of status 0 is an error in the device's program. So a device
//     accepts a signal with 200, and 0 is only good from others.
//   - The service takes a message that the hub released for one that was sent.
//   - The service has no SASL, and fails with NotConnectedError where the hub
//     insists on it.
//   - Query.next() starts anew unless it is given the continuationToken.
//
// # Soak
//
// TestNeighbour lasts 20 s, or as long as the environment says:
//
//	SOAK=10m go test -count=1 -tags clients -timeout 20m -run TestNeighbour ./test/clients/azure
package azure
