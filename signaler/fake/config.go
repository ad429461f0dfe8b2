package fake

import (
	"fmt"
	"log/slog"
	"time"
)

// A Mode is how the hub hands signals to devices.
type Mode int

const (
	// Method waits for the device's answer, as a direct method does. A device
	// that is not connected cannot be signalled.
	Method Mode = iota
	// Message is fire and forget, as a cloud-to-device message is. The hub keeps
	// QueueLength messages per device until it connects or they expire.
	Message
)

// QueueLength is how many messages wait for one device; IoT Hub's number.
const QueueLength = 50

// MessageLife is how long a message without an expiry waits; IoT Hub's default.
const MessageLife = time.Hour

const defaultAnswerTimeout = 10 * time.Second

func (m Mode) String() string {
	switch m {
	case Method:
		return "method"
	case Message:
		return "message"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// ParseMode reads what String writes.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Method, Message} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q is neither %v nor %v", s, Method, Message)
}

// Config of a Hub. The zero Config is a hub in Method mode that knows no device
// until it listens.
type Config struct {
	Mode          Mode
	AnswerTimeout time.Duration // how long Signal waits for the device's answer in Method mode; 0: 10 s
	Devices       []string      // IDs the hub knows before they listen; a device that ever listened is known
	AnyDevice     bool          // every ID is known
	Logger        *slog.Logger  // nil: silent
}
