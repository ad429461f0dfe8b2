package emulator

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// mqttIdentity reads who comes: a client id of device or device/module, and a user
// name that starts with the hub and the same IDs. What follows is the SDK's:
// ?api-version=…, or api-version=… without the question mark as amenzhinsky/iothub
// has it, or nothing; any version and any other parameter are fine.
func (h *Hub) mqttIdentity(clientID, username string) (identity, error) {
	device, module, hasModule := strings.Cut(clientID, "/")
	id := identity{device, module}
	if device == "" || hasModule && (module == "" || strings.Contains(module, "/")) {
		return id, errors.New("the client id is neither device nor device/module")
	}
	host, rest, _ := strings.Cut(username, "/")
	if !h.hostIs(host) {
		return id, errors.New("the user name does not start with the hub's name")
	}
	want := []string{device}
	if hasModule {
		want = append(want, module)
	}
	for _, w := range want {
		var level string
		level, rest, _ = strings.Cut(rest, "/")
		if !sameID(level, w) {
			return id, errors.New("the user name and the client id name different identities")
		}
	}
	if first, _, _ := strings.Cut(rest, "/"); rest != "" && rest[0] != '?' && !strings.Contains(first, "=") {
		return id, errors.New("the user name has something that is no parameter after the IDs")
	}
	return id, nil
}

// sameID says whether a level of a topic or of a user name is id, percent-encoded
// or not: SDKs differ, and an ID may have a % of its own.
func sameID(level, id string) bool {
	if level == id {
		return true
	}
	plain, err := url.PathUnescape(level)
	return err == nil && plain == id
}

// ownTopic cuts devices/{d}/, or devices/{d}/modules/{m}/ of a module, off.
func ownTopic(id identity, topic string) (prefix, rest string, ok bool) {
	want := []func(string) bool{
		func(s string) bool { return s == "devices" },
		func(s string) bool { return sameID(s, id.Device) },
	}
	if id.Module != "" {
		want = append(want,
			func(s string) bool { return s == "modules" },
			func(s string) bool { return sameID(s, id.Module) })
	}
	rest = topic
	for _, is := range want {
		var level string
		if level, rest, ok = strings.Cut(rest, "/"); !ok || !is(level) {
			return "", "", false
		}
	}
	return topic[:len(topic)-len(rest)], rest, true
}

// A mqttFilter is one that the hub takes.
type mqttFilter int

const (
	filterMessages mqttFilter = iota // cloud-to-device messages
	filterMethods
	filterDesired
	filterTwin   // answers about the twin
	filterInputs // of an IoT Edge module; nothing comes
)

const (
	methodsFilter = "$iothub/methods/POST/#"
	desiredFilter = "$iothub/twin/PATCH/properties/desired/#"
	twinFilter    = "$iothub/twin/res/#"
)

// parseFilter says what a filter is for. Messages come under prefix, which is the
// client's own spelling: its topics have to match its filter.
func parseFilter(id identity, filter string) (kind mqttFilter, prefix string, err error) {
	switch filter {
	case methodsFilter:
		return filterMethods, "", nil
	case desiredFilter:
		return filterDesired, "", nil
	case twinFilter:
		return filterTwin, "", nil
	}
	own, rest, ok := ownTopic(id, filter)
	switch {
	case ok && strings.EqualFold(rest, "messages/devicebound/#"):
		return filterMessages, strings.TrimSuffix(filter, "#"), nil
	case ok && id.Module != "" && rest == "#":
		return filterMessages, own + "messages/devicebound/", nil
	case ok && id.Module != "" && rest == "inputs/#":
		return filterInputs, "", nil
	}
	return 0, "", fmt.Errorf("subscribed to %.100q, which is none of the hub's topics", filter)
}

// A mqttTopic is one that a device publishes to.
type mqttTopic struct {
	kind       topicKind
	properties []property // of topicEvents
	status     int        // of topicMethod
	rid        string     // as the device wrote it
}

type topicKind int

const (
	topicEvents topicKind = iota
	topicMethod
	topicGet
	topicPatch
)

func parseTopic(id identity, topic string) (t mqttTopic, err error) {
	if _, rest, ok := ownTopic(id, topic); ok {
		bag, ok := strings.CutPrefix(rest, "messages/events")
		if ok && (bag == "" || bag[0] == '/') {
			t.properties, err = decodeBag(strings.TrimPrefix(bag, "/"))
			return t, err
		}
	} else if rest, ok := strings.CutPrefix(topic, "$iothub/methods/res/"); ok {
		status, query, _ := strings.Cut(rest, "/")
		t.kind = topicMethod
		if t.status, err = strconv.Atoi(status); err != nil {
			return t, errors.New("published a method's answer whose status is no integer")
		}
		return t, t.parseRID(query)
	} else if query, ok := strings.CutPrefix(topic, "$iothub/twin/GET/"); ok {
		t.kind = topicGet
		return t, t.parseRID(query)
	} else if query, ok := strings.CutPrefix(topic, "$iothub/twin/PATCH/properties/reported/"); ok {
		t.kind = topicPatch
		return t, t.parseRID(query)
	}
	return t, fmt.Errorf("published to %.100q, which is none of the hub's topics", topic)
}

// parseRID finds $rid in ?$rid=…&…; it goes back as it came.
func (t *mqttTopic) parseRID(query string) error {
	query, ok := strings.CutPrefix(query, "?")
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name == "$rid" || name == "%24rid" {
			t.rid = value
		}
	}
	if !ok || t.rid == "" {
		return errors.New("published to a topic that needs ?$rid=")
	}
	return nil
}
