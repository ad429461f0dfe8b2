package emulator

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// A property bag is the last level of a topic: name=value pairs with & between,
// name= for an empty value and a bare name for null. Names and values are
// percent-encoded once, / too, so that the bag is one level. + is a plus.

// decodeBag reads a bag. It splits first and decodes the parts then, so a value
// may hold what separates.
func decodeBag(s string) ([]property, error) {
	var out []property
	if s == "" {
		return nil, nil
	}
	for pair := range strings.SplitSeq(s, "&") {
		if pair == "" {
			continue // a & at the end
		}
		rawName, rawValue, hasValue := strings.Cut(pair, "=")
		name, err := decodePart(rawName)
		if err != nil {
			return nil, fmt.Errorf("property bag: a name %w", err)
		}
		if name == "" {
			return nil, errors.New("property bag: a value without a name")
		}
		p := property{Name: name}
		if hasValue {
			value, err := decodePart(rawValue)
			if err != nil {
				return nil, fmt.Errorf("property bag: the value of %q %w", name, err)
			}
			p.Value = &value
		}
		out = append(out, p)
	}
	return out, nil
}

func decodePart(s string) (string, error) {
	out, err := url.PathUnescape(s)
	if err != nil {
		return "", errors.New("is badly encoded")
	}
	if !utf8.ValidString(out) {
		return "", errors.New("is not UTF-8")
	}
	return out, nil
}

// encodeBag is what decodeBag reads. A property without a name cannot be written,
// and is left out.
func encodeBag(properties []property) string {
	var b strings.Builder
	for _, p := range properties {
		if p.Name == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		encodePart(&b, p.Name)
		if p.Value != nil {
			b.WriteByte('=')
			encodePart(&b, *p.Value)
		}
	}
	return b.String()
}

// encodePart leaves only what RFC 3986 calls unreserved as it is.
func encodePart(b *strings.Builder, s string) {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}

func propertyOf(name, value string) property { return property{name, &value} }

// exactTime is how .NET prints a time, with 100 ns.
const exactTime = "2006-01-02T15:04:05.0000000Z"

// messageProperties are those of a cloud-to-device message: what the hub knows of
// it as $. properties, and what the sender gave it. IoT Hub has sent both orders;
// where the sender's came first, IDs that the sender left out were null.
func messageProperties(id identity, m *c2dMessage, applicationFirst bool) []property {
	to := "/devices/" + id.Device
	if id.Module != "" {
		to += "/modules/" + id.Module
	}
	var system []property
	add := func(name, value string) {
		if value != "" {
			system = append(system, propertyOf(name, value))
		}
	}
	add("$.mid", m.ID)
	add("$.to", to+"/messages/devicebound")
	for _, p := range []property{propertyOf("$.cid", m.CorrelationID), propertyOf("$.uid", m.UserID)} {
		if *p.Value != "" {
			system = append(system, p)
		} else if applicationFirst {
			system = append(system, property{Name: p.Name})
		}
	}
	add("$.ct", m.ContentType)
	add("$.ce", m.ContentEncoding)
	add("$.exp", m.Expiry.UTC().Format(exactTime))
	var given []property
	if m.Ack != "" {
		given = append(given, propertyOf("iothub-ack", m.Ack))
	}
	given = append(given, m.Properties...)
	if applicationFirst {
		return append(given, system...)
	}
	return append(system, given...)
}
