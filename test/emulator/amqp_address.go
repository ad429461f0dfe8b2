package emulator

import (
	"net/url"
	"strings"
)

// An addressKind is what an AMQP link is for.
type addressKind int

const (
	addressUnknown       addressKind = iota
	addressCBS                       // $cbs
	addressC2D                       // messages/devicebound
	addressFeedback                  // messages/serviceBound/feedback
	addressFiles                     // messages/serviceBound/filenotifications
	addressEvents                    // devices/{id}[/modules/{id}]/messages/events
	addressDeviceC2D                 // devices/{id}[/modules/{id}]/messages/devicebound
	addressDeviceMethods             // devices/{id}[/modules/{id}]/methods/devicebound
)

// An amqpAddress is a link's address, or a message's.
type amqpAddress struct {
	kind addressKind
	id   identity // of a device's
}

var addressKinds = map[string]addressKind{
	"$cbs":                           addressCBS,
	"messages/devicebound":           addressC2D,
	"messages/servicebound/feedback": addressFeedback,
	"messages/servicebound/filenotifications": addressFiles,
}

var deviceAddressKinds = map[string]addressKind{
	"messages/events":      addressEvents,
	"messages/devicebound": addressDeviceC2D,
	"methods/devicebound":  addressDeviceMethods,
}

// parseAddress reads a path or an absolute address, such as
// amqps://hub:5671/messages/deviceBound. The slash in front is not needed, and case
// matters in IDs only.
func parseAddress(s string) amqpAddress {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		_, s, _ = strings.Cut(rest, "/")
	}
	s = strings.TrimPrefix(s, "/")
	if kind := addressKinds[strings.ToLower(s)]; kind != addressUnknown {
		return amqpAddress{kind: kind}
	}
	id, rest, ok := cutIdentity(s)
	if !ok {
		return amqpAddress{}
	}
	return amqpAddress{deviceAddressKinds[strings.ToLower(rest)], id}
}

// cutIdentity reads devices/{id} or devices/{id}/modules/{id} at the start of a path.
// IDs may be percent-encoded, as C# does, or not.
func cutIdentity(path string) (id identity, rest string, ok bool) {
	if id.Device, rest, ok = cutID(path, "devices"); !ok {
		return identity{}, "", false
	}
	if module, after, isModule := cutID(rest, "modules"); isModule {
		id.Module, rest = module, after
	}
	return id, rest, true
}

// cutID reads name/{id} at the start of a path.
func cutID(path, name string) (id, rest string, ok bool) {
	first, rest, _ := strings.Cut(path, "/")
	if !strings.EqualFold(first, name) {
		return "", "", false
	}
	first, rest, _ = strings.Cut(rest, "/")
	id, err := url.PathUnescape(first)
	if err != nil {
		id = first // amenzhinsky's library escapes nothing, and % may be in an ID
	}
	return id, rest, id != ""
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
