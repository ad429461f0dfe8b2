// Package client is the Go library for the service side: it reaches a device
// through a relay.
//
// Dial opens a session: many streams on one bridge, one signal to the device.
// DialRaw opens a raw bridge: one byte stream, no protocol of ours on it. A Link
// keeps a session to a device, dialling again when it is lost.
//
// Errors are *Error when the relay or the device said no; its Code says why.
package client
