package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"websocketbridge/signaler"
)

// Timers of /signals, on both ends.
const (
	pingEvery    = 15 * time.Second // the hub pings
	deadAfter    = 35 * time.Second // without any frame: two pings lost and some room
	writeTimeout = 10 * time.Second // loopback: whoever needs longer has stopped reading
	closeTimeout = time.Second      // for the other end's close frame
)

// Sizes.
const (
	maxReply    = 16 << 10               // of a device's answer; the sentence may be long
	maxDelivery = signaler.MaxSize + 512 // of the hub's message
	maxFaults   = 16 << 10               // of the body of PUT /faults
	maxDeviceID = 257                    // IoT Hub: deviceId/moduleId of 128 each
)

// closeTakenOver is the close code of a connection that another one of the same
// device replaced. Codes from 4000 on are the application's (RFC 6455 section
// 7.4.2).
const closeTakenOver = 4001

// A delivery goes from the hub to the device.
type delivery struct {
	ID      uint64          `json:"id"`
	Answers bool            `json:"answers,omitempty"`
	Signal  json.RawMessage `json:"signal"` // byte for byte what the signaler encoded
}

// A reply goes from the device to the hub.
type reply struct {
	ID     *uint64           `json:"id"`
	Refuse *signaler.Refusal `json:"refuse,omitempty"`
}

func (d delivery) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // would change the signal's bytes
	if err := enc.Encode(d); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

var errReply = errors.New(`an answer is {"id":N} or {"id":N,"refuse":{"code":"…","message":"…"}}`)

func parseReply(b []byte) (reply, error) {
	var r reply
	if err := decodeStrict(b, &r); err != nil || r.ID == nil {
		return reply{}, errReply // err may quote what was sent
	}
	return r, nil
}

func parseDelivery(b []byte) (delivery, error) {
	var d delivery
	if err := json.Unmarshal(b, &d); err != nil || d.Signal == nil {
		return delivery{}, errors.New("the hub sent something that is no delivery")
	}
	return d, nil
}

func checkDeviceID(id string) error {
	switch {
	case id == "":
		return errors.New("deviceId is missing")
	case len(id) > maxDeviceID:
		return fmt.Errorf("deviceId has %d bytes; %d are allowed", len(id), maxDeviceID)
	}
	return nil
}

// loopbackHost reports whether host, with or without a port, can only be this
// machine.
func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
