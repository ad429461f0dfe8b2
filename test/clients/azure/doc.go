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
// # What was found out on the way
//
// A device written with the SDK reads a property without a value, which is null,
// as the word undefined. Its first connection fails with "Not authorized" whatever
// the reason; a hub that refuses shows as "Connection refused: Not authorized". It
// throws on a method's answer of status 0.
//
// The soak (TestNeighbour) lasts 20 s, or what the environment says:
//
//	SOAK=10m go test -count=1 -tags clients -timeout 20m -run TestNeighbour ./test/clients/azure
package azure
