package amqp

import "fmt"

// A performative is the body of a frame.
type performative interface {
	code() uint64
	list() List
}

// Descriptors of the standard, parts 2, 3 and 5.
const (
	codeOpen           = 0x10
	codeBegin          = 0x11
	codeAttach         = 0x12
	codeFlow           = 0x13
	codeTransfer       = 0x14
	codeDisposition    = 0x15
	codeDetach         = 0x16
	codeEnd            = 0x17
	codeClose          = 0x18
	codeError          = 0x1d
	codeReceived       = 0x23
	codeAccepted       = 0x24
	codeRejected       = 0x25
	codeReleased       = 0x26
	codeModified       = 0x27
	codeSource         = 0x28
	codeTarget         = 0x29
	codeSASLMechanisms = 0x40
	codeSASLInit       = 0x41
	codeSASLChallenge  = 0x42
	codeSASLResponse   = 0x43
	codeSASLOutcome    = 0x44
)

// descriptorNames are the other spelling of descriptors that a peer may use.
var descriptorNames = map[Symbol]uint64{
	"amqp:open:list": codeOpen, "amqp:begin:list": codeBegin, "amqp:attach:list": codeAttach, "amqp:flow:list": codeFlow,
	"amqp:transfer:list": codeTransfer, "amqp:disposition:list": codeDisposition, "amqp:detach:list": codeDetach,
	"amqp:end:list": codeEnd, "amqp:close:list": codeClose, "amqp:error:list": codeError,
	"amqp:received:list": codeReceived, "amqp:accepted:list": codeAccepted, "amqp:rejected:list": codeRejected,
	"amqp:released:list": codeReleased, "amqp:modified:list": codeModified,
	"amqp:source:list": codeSource, "amqp:target:list": codeTarget,
	"amqp:sasl-mechanisms:list": codeSASLMechanisms, "amqp:sasl-init:list": codeSASLInit,
	"amqp:sasl-challenge:list": codeSASLChallenge, "amqp:sasl-response:list": codeSASLResponse, "amqp:sasl-outcome:list": codeSASLOutcome,
	"amqp:header:list": sectionHeader, "amqp:delivery-annotations:map": sectionDeliveryAnnotations,
	"amqp:message-annotations:map": sectionAnnotations, "amqp:properties:list": sectionProperties,
	"amqp:application-properties:map": sectionApplicationProperties, "amqp:data:binary": sectionData,
	"amqp:amqp-sequence:list": sectionSequence, "amqp:amqp-value:*": sectionValue, "amqp:footer:map": sectionFooter,
}

// Roles of a link's end, as on the wire.
const (
	roleSender   = false
	roleReceiver = true
)

type open struct {
	containerID  string
	hostname     string
	maxFrameSize *uint32 // nil: no bound
	channelMax   *uint16 // nil: 65535
	idleTimeOut  *uint32 // ms; nil: none
	outgoing     any     // outgoing-locales
	incoming     any     // incoming-locales
	offered      []Symbol
	desired      []Symbol
	properties   Map
}

func (*open) code() uint64 { return codeOpen }
func (p *open) list() List {
	return List{p.containerID, orNull(p.hostname), pointed(p.maxFrameSize), pointed(p.channelMax), pointed(p.idleTimeOut),
		p.outgoing, p.incoming, symbolsOrNull(p.offered), symbolsOrNull(p.desired), mapOrNull(p.properties)}
}

func readOpen(f *fields) performative {
	return &open{needed[string](f, "container-id"), value[string](f, "hostname"), optional[uint32](f, "max-frame-size"),
		optional[uint16](f, "channel-max"), optional[uint32](f, "idle-time-out"), value[any](f, "outgoing-locales"),
		value[any](f, "incoming-locales"), symbols(f, "offered-capabilities"), symbols(f, "desired-capabilities"), value[Map](f, "properties")}
}

type begin struct {
	remoteChannel  *uint16
	nextOutgoingID uint32
	incomingWindow uint32
	outgoingWindow uint32
	handleMax      *uint32 // nil: 1<<32 - 1
	offered        []Symbol
	desired        []Symbol
	properties     Map
}

func (*begin) code() uint64 { return codeBegin }
func (p *begin) list() List {
	return List{pointed(p.remoteChannel), p.nextOutgoingID, p.incomingWindow, p.outgoingWindow, pointed(p.handleMax),
		symbolsOrNull(p.offered), symbolsOrNull(p.desired), mapOrNull(p.properties)}
}

func readBegin(f *fields) performative {
	return &begin{optional[uint16](f, "remote-channel"), needed[uint32](f, "next-outgoing-id"), needed[uint32](f, "incoming-window"),
		needed[uint32](f, "outgoing-window"), optional[uint32](f, "handle-max"), symbols(f, "offered-capabilities"),
		symbols(f, "desired-capabilities"), value[Map](f, "properties")}
}

type attach struct {
	name                 string
	handle               uint32
	role                 bool
	sndSettleMode        *uint8
	rcvSettleMode        *uint8
	source, target       any // Described list or nil; kept whole, as the answer mirrors them
	unsettled            any
	incompleteUnsettled  bool
	initialDeliveryCount *uint32
	maxMessageSize       uint64
	offered              []Symbol
	desired              []Symbol
	properties           Map
}

func (*attach) code() uint64 { return codeAttach }
func (p *attach) list() List {
	return List{p.name, p.handle, p.role, pointed(p.sndSettleMode), pointed(p.rcvSettleMode), p.source, p.target, p.unsettled,
		orNull(p.incompleteUnsettled), pointed(p.initialDeliveryCount), orNull(p.maxMessageSize),
		symbolsOrNull(p.offered), symbolsOrNull(p.desired), mapOrNull(p.properties)}
}

// peerSends says whether the end that attaches is the link's sender.
func (p *attach) peerSends() bool { return !p.role }

func readAttach(f *fields) performative {
	return &attach{needed[string](f, "name"), needed[uint32](f, "handle"), needed[bool](f, "role"), optional[uint8](f, "snd-settle-mode"),
		optional[uint8](f, "rcv-settle-mode"), value[any](f, "source"), value[any](f, "target"), value[any](f, "unsettled"),
		value[bool](f, "incomplete-unsettled"), optional[uint32](f, "initial-delivery-count"), value[uint64](f, "max-message-size"),
		symbols(f, "offered-capabilities"), symbols(f, "desired-capabilities"), value[Map](f, "properties")}
}

type flow struct {
	nextIncomingID *uint32
	incomingWindow uint32
	nextOutgoingID uint32
	outgoingWindow uint32
	handle         *uint32 // nil: about the session only
	deliveryCount  *uint32
	linkCredit     *uint32
	available      *uint32
	drain          bool
	echo           bool
	properties     Map
}

func (*flow) code() uint64 { return codeFlow }
func (p *flow) list() List {
	return List{pointed(p.nextIncomingID), p.incomingWindow, p.nextOutgoingID, p.outgoingWindow, pointed(p.handle),
		pointed(p.deliveryCount), pointed(p.linkCredit), pointed(p.available), orNull(p.drain), orNull(p.echo), mapOrNull(p.properties)}
}

func readFlow(f *fields) performative {
	return &flow{optional[uint32](f, "next-incoming-id"), needed[uint32](f, "incoming-window"), needed[uint32](f, "next-outgoing-id"),
		needed[uint32](f, "outgoing-window"), optional[uint32](f, "handle"), optional[uint32](f, "delivery-count"),
		optional[uint32](f, "link-credit"), optional[uint32](f, "available"), value[bool](f, "drain"), value[bool](f, "echo"),
		value[Map](f, "properties")}
}

type transfer struct {
	handle        uint32
	deliveryID    *uint32
	deliveryTag   []byte
	messageFormat *uint32
	settled       *bool
	more          bool
	rcvSettleMode *uint8
	state         any
	resume        bool
	aborted       bool
	batchable     bool
}

func (*transfer) code() uint64 { return codeTransfer }
func (p *transfer) list() List {
	return List{p.handle, pointed(p.deliveryID), bytesOrNull(p.deliveryTag), pointed(p.messageFormat), pointed(p.settled), orNull(p.more),
		pointed(p.rcvSettleMode), p.state, orNull(p.resume), orNull(p.aborted), orNull(p.batchable)}
}

func readTransfer(f *fields) performative {
	return &transfer{needed[uint32](f, "handle"), optional[uint32](f, "delivery-id"), value[[]byte](f, "delivery-tag"),
		optional[uint32](f, "message-format"), optional[bool](f, "settled"), value[bool](f, "more"), optional[uint8](f, "rcv-settle-mode"),
		value[any](f, "state"), value[bool](f, "resume"), value[bool](f, "aborted"), value[bool](f, "batchable")}
}

type disposition struct {
	role      bool
	first     uint32
	last      *uint32 // nil: first
	settled   bool
	state     any
	batchable bool
}

func (*disposition) code() uint64 { return codeDisposition }
func (p *disposition) list() List {
	return List{p.role, p.first, pointed(p.last), orNull(p.settled), p.state, orNull(p.batchable)}
}

// bySender says whether it is about what its sender has sent, not received.
func (p *disposition) bySender() bool { return !p.role }

func readDisposition(f *fields) performative {
	return &disposition{needed[bool](f, "role"), needed[uint32](f, "first"), optional[uint32](f, "last"), value[bool](f, "settled"),
		value[any](f, "state"), value[bool](f, "batchable")}
}

type detach struct {
	handle uint32
	closed bool
	err    *Error
}

func (*detach) code() uint64 { return codeDetach }
func (p *detach) list() List { return List{p.handle, orNull(p.closed), p.err.value()} }

func readDetach(f *fields) performative {
	return &detach{needed[uint32](f, "handle"), value[bool](f, "closed"), readError(f)}
}

type end struct{ err *Error }

func (*end) code() uint64            { return codeEnd }
func (p *end) list() List            { return List{p.err.value()} }
func readEnd(f *fields) performative { return &end{readError(f)} }

type closing struct{ err *Error }

func (*closing) code() uint64          { return codeClose }
func (p *closing) list() List          { return List{p.err.value()} }
func readClose(f *fields) performative { return &closing{readError(f)} }

type saslMechanisms struct{ names []Symbol }

func (*saslMechanisms) code() uint64 { return codeSASLMechanisms }
func (p *saslMechanisms) list() List { return List{Symbols(p.names...)} }
func readMechanisms(f *fields) performative {
	return &saslMechanisms{symbols(f, "sasl-server-mechanisms")}
}

type saslInit struct {
	mechanism Symbol
	response  []byte
	hostname  string
}

func (*saslInit) code() uint64 { return codeSASLInit }
func (p *saslInit) list() List {
	return List{p.mechanism, bytesOrNull(p.response), orNull(p.hostname)}
}

func readSASLInit(f *fields) performative {
	return &saslInit{needed[Symbol](f, "mechanism"), value[[]byte](f, "initial-response"), value[string](f, "hostname")}
}

// saslBytes is a challenge or a response.
type saslBytes struct {
	kind uint64
	data []byte
}

func (p *saslBytes) code() uint64 { return p.kind }
func (p *saslBytes) list() List   { return List{p.data} }

type saslOutcome struct {
	result uint8 // 0 ok, 1 bad credentials
	data   []byte
}

func (*saslOutcome) code() uint64 { return codeSASLOutcome }
func (p *saslOutcome) list() List { return List{p.result, bytesOrNull(p.data)} }

func readSASLOutcome(f *fields) performative {
	return &saslOutcome{needed[uint8](f, "code"), value[[]byte](f, "additional-data")}
}

// kinds is how to read each performative.
var kinds = map[uint64]struct {
	name string
	read func(*fields) performative
}{
	codeOpen: {"open", readOpen}, codeBegin: {"begin", readBegin}, codeAttach: {"attach", readAttach}, codeFlow: {"flow", readFlow},
	codeTransfer: {"transfer", readTransfer}, codeDisposition: {"disposition", readDisposition}, codeDetach: {"detach", readDetach},
	codeEnd: {"end", readEnd}, codeClose: {"close", readClose},
	codeSASLMechanisms: {"sasl-mechanisms", readMechanisms}, codeSASLInit: {"sasl-init", readSASLInit},
	codeSASLChallenge: {"sasl-challenge", func(f *fields) performative { return &saslBytes{codeSASLChallenge, needed[[]byte](f, "challenge")} }},
	codeSASLResponse:  {"sasl-response", func(f *fields) performative { return &saslBytes{codeSASLResponse, needed[[]byte](f, "response")} }},
	codeSASLOutcome:   {"sasl-outcome", readSASLOutcome},
}

// readPerformative decodes the performative at the start of a frame's body. What
// follows is the payload.
func readPerformative(body []byte) (performative, []byte, error) {
	v, payload, err := ReadValue(body)
	if err != nil {
		return nil, nil, err
	}
	code, l, err := composite(v)
	if err != nil {
		return nil, nil, err
	}
	kind, ok := kinds[code]
	if !ok {
		return nil, nil, fmt.Errorf("unknown performative 0x%x", code)
	}
	f := &fields{of: kind.name, list: l}
	p := kind.read(f)
	return p, payload, f.err
}
