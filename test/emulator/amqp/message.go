package amqp

import (
	"bytes"
	"errors"
	"fmt"
)

// A Message is what a delivery carries. Sections that are nil are not sent. The body
// is Data, Sequences or Value.
type Message struct {
	Header                *Header
	DeliveryAnnotations   Map
	Annotations           Map
	Properties            *Properties
	ApplicationProperties Map
	Data                  [][]byte
	Sequences             []List
	Value                 any // a null body is no body
	Footer                Map
}

// A Header tells of the message's delivery.
type Header struct {
	Durable       bool
	Priority      *uint8  // nil: 4
	TTL           *uint32 // ms; nil: none
	FirstAcquirer bool
	DeliveryCount uint32
}

// Properties of a message. The zero value of a field is absent on the wire.
type Properties struct {
	MessageID          any // string, UUID, uint64, []byte or nil
	UserID             []byte
	To                 string
	Subject            string
	ReplyTo            string
	CorrelationID      any // as MessageID
	ContentType        Symbol
	ContentEncoding    Symbol
	AbsoluteExpiryTime Timestamp
	CreationTime       Timestamp
	GroupID            string
	GroupSequence      *uint32
	ReplyToGroupID     string
}

// Body returns the data sections as one.
func (m *Message) Body() []byte { return bytes.Join(m.Data, nil) }

// Descriptors of the sections.
const (
	sectionHeader                = 0x70
	sectionDeliveryAnnotations   = 0x71
	sectionAnnotations           = 0x72
	sectionProperties            = 0x73
	sectionApplicationProperties = 0x74
	sectionData                  = 0x75
	sectionSequence              = 0x76
	sectionValue                 = 0x77
	sectionFooter                = 0x78
)

// MarshalBinary encodes the sections in the order of the standard. It fails on a
// value that AppendValue does not know.
func (m *Message) MarshalBinary() (b []byte, err error) {
	add := func(code uint64, v any) {
		if err == nil {
			b, err = AppendValue(b, Described{code, v})
		}
	}
	if h := m.Header; h != nil {
		add(sectionHeader, trim(List{orNull(h.Durable), pointed(h.Priority), pointed(h.TTL), orNull(h.FirstAcquirer), orNull(h.DeliveryCount)}))
	}
	if m.DeliveryAnnotations != nil {
		add(sectionDeliveryAnnotations, m.DeliveryAnnotations)
	}
	if m.Annotations != nil {
		add(sectionAnnotations, m.Annotations)
	}
	if p := m.Properties; p != nil {
		add(sectionProperties, trim(List{p.MessageID, bytesOrNull(p.UserID), orNull(p.To), orNull(p.Subject), orNull(p.ReplyTo), p.CorrelationID,
			orNull(p.ContentType), orNull(p.ContentEncoding), orNull(p.AbsoluteExpiryTime), orNull(p.CreationTime),
			orNull(p.GroupID), pointed(p.GroupSequence), orNull(p.ReplyToGroupID)}))
	}
	if m.ApplicationProperties != nil {
		add(sectionApplicationProperties, m.ApplicationProperties)
	}
	for _, data := range m.Data {
		add(sectionData, data)
	}
	for _, s := range m.Sequences {
		add(sectionSequence, s)
	}
	if m.Value != nil {
		add(sectionValue, m.Value)
	}
	if m.Footer != nil {
		add(sectionFooter, m.Footer)
	}
	return b, err
}

// UnmarshalBinary decodes a message. Sections must come in the order of the
// standard, only those of the body more than once.
func (m *Message) UnmarshalBinary(b []byte) error {
	*m = Message{}
	last := uint64(0)
	for len(b) > 0 {
		v, rest, err := ReadValue(b)
		if err != nil {
			return fmt.Errorf("section of a message: %w", err)
		}
		b = rest
		d, ok := v.(Described)
		if !ok {
			return fmt.Errorf("a %T where a section of a message should be", v)
		}
		code, err := descriptorCode(d.Descriptor)
		if err != nil {
			return fmt.Errorf("section of a message: %w", err)
		}
		if code < last || code == last && code != sectionData && code != sectionSequence {
			return fmt.Errorf("section 0x%x of a message comes after section 0x%x", code, last)
		}
		last = code
		if err := m.section(code, d.Value); err != nil {
			return err
		}
	}
	if bodies := min(len(m.Data), 1) + min(len(m.Sequences), 1); bodies > 1 || bodies == 1 && m.Value != nil {
		return errors.New("message with more than one kind of body")
	}
	return nil
}

func (m *Message) section(code uint64, v any) (err error) {
	switch code {
	case sectionHeader:
		m.Header, err = header(v)
	case sectionDeliveryAnnotations:
		m.DeliveryAnnotations, err = sectionOf[Map](code, v)
	case sectionAnnotations:
		m.Annotations, err = sectionOf[Map](code, v)
	case sectionProperties:
		m.Properties, err = properties(v)
	case sectionApplicationProperties:
		m.ApplicationProperties, err = sectionOf[Map](code, v)
	case sectionData:
		var data []byte
		data, err = sectionOf[[]byte](code, v)
		m.Data = append(m.Data, data)
	case sectionSequence:
		var s List
		s, err = sectionOf[List](code, v)
		m.Sequences = append(m.Sequences, s)
	case sectionValue:
		m.Value = v
	case sectionFooter:
		m.Footer, err = sectionOf[Map](code, v)
	default:
		err = fmt.Errorf("unknown section 0x%x of a message", code)
	}
	return err
}

func sectionOf[T any](code uint64, v any) (T, error) {
	t, ok := v.(T)
	if !ok {
		return t, fmt.Errorf("section 0x%x of a message holds a %T", code, v)
	}
	return t, nil
}

func header(v any) (*Header, error) {
	l, err := sectionOf[List](sectionHeader, v)
	f := &fields{of: "header", list: l, err: err}
	h := &Header{
		Durable:       value[bool](f, "durable"),
		Priority:      optional[uint8](f, "priority"),
		TTL:           optional[uint32](f, "ttl"),
		FirstAcquirer: value[bool](f, "first-acquirer"),
		DeliveryCount: value[uint32](f, "delivery-count"),
	}
	return h, f.err
}

func properties(v any) (*Properties, error) {
	l, err := sectionOf[List](sectionProperties, v)
	f := &fields{of: "properties", list: l, err: err}
	p := &Properties{
		MessageID:          messageID(f, "message-id"),
		UserID:             value[[]byte](f, "user-id"),
		To:                 value[string](f, "to"),
		Subject:            value[string](f, "subject"),
		ReplyTo:            value[string](f, "reply-to"),
		CorrelationID:      messageID(f, "correlation-id"),
		ContentType:        value[Symbol](f, "content-type"),
		ContentEncoding:    value[Symbol](f, "content-encoding"),
		AbsoluteExpiryTime: value[Timestamp](f, "absolute-expiry-time"),
		CreationTime:       value[Timestamp](f, "creation-time"),
		GroupID:            value[string](f, "group-id"),
		GroupSequence:      optional[uint32](f, "group-sequence"),
		ReplyToGroupID:     value[string](f, "reply-to-group-id"),
	}
	return p, f.err
}

func messageID(f *fields, name string) any {
	v, _ := read[any](f, name)
	switch v.(type) {
	case nil, string, UUID, uint64, []byte:
		return v
	}
	if f.err == nil {
		f.err = fmt.Errorf("field %s of %s is a %T", name, f.of, v)
	}
	return nil
}
