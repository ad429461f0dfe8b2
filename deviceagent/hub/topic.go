package hub

import (
	"net/url"
	"strings"
)

// A bag is the properties of a message, from the last level of its topic. A nil
// value is null: the property is there and says nothing.
type bag map[string]*string

// parseBag reads name=value pairs with & between, in any order, each name and value
// percent-encoded once. It splits before it decodes: a value may hold & and =, as a
// URL does. A + is a plus. What is badly encoded stays as it is: one bad property
// does not make the others unreadable. Of two with one name the first counts.
func parseBag(s string) bag {
	b := make(bag)
	for pair := range strings.SplitSeq(s, "&") {
		name, value, has := strings.Cut(pair, "=")
		name = decode(name)
		if _, twice := b[name]; twice || name == "" {
			continue
		}
		b[name] = nil
		if has {
			value = decode(value)
			b[name] = &value
		}
	}
	return b
}

func decode(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// is reports whether the property has this value. A null has none.
func (b bag) is(name, value string) bool {
	v := b[name]
	return v != nil && *v == value
}

// cutMessage takes the bag from the topic of a cloud-to-device message,
// devices/{id}/messages/devicebound/{bag}. Real ones have written the level as
// deviceBound, too. A slash in the bag is the bag's.
func cutMessage(topic string) (bag string, ok bool) {
	levels := strings.SplitN(topic, "/", 5)
	if len(levels) < 4 || levels[0] != "devices" || levels[2] != "messages" || !strings.EqualFold(levels[3], "devicebound") {
		return "", false
	}
	if len(levels) == 5 {
		bag = levels[4]
	}
	return strings.Trim(bag, "/"), true
}

// cutMethod takes name and request ID from the topic of a direct method,
// $iothub/methods/POST/{name}/?$rid={rid}. The request ID goes back as it came.
func cutMethod(topic string) (name, rid string, ok bool) {
	rest, ok := strings.CutPrefix(topic, "$iothub/methods/POST/")
	if !ok {
		return "", "", false
	}
	name, query, ok := strings.Cut(rest, "/?")
	if !ok {
		return "", "", false
	}
	for field := range strings.SplitSeq(query, "&") {
		if v, is := strings.CutPrefix(field, "$rid="); is && rid == "" {
			rid = v
		}
	}
	// A wildcard in the answer's topic would end the connection.
	if name == "" || rid == "" || strings.ContainsAny(rid, "+#\x00") {
		return "", "", false
	}
	return decode(name), rid, true
}
