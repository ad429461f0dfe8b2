package amqp

import (
	"errors"
	"fmt"
	"io"
)

const (
	frameHeaderSize  = 8
	minMaxFrameSize  = 512 // what every peer must take; part 2, section 2.3
	frameTypeAMQP    = 0
	frameTypeSASL    = 1
	protocolAMQP     = 0
	protocolTLS      = 2
	protocolSASL     = 3
	protocolHeadSize = 8
)

// A frame is one of a connection's or of its SASL layer's.
type frame struct {
	kind    byte
	channel uint16
	body    performative // nil: an empty frame, which only shows life
	payload []byte
}

func protocolHeader(id byte) []byte { return []byte{'A', 'M', 'Q', 'P', id, 1, 0, 0} }

// appendFrame appends f. Its body must be encodable.
func appendFrame(b []byte, f frame) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 2, f.kind, byte(f.channel>>8), byte(f.channel))
	if f.body != nil {
		var err error
		if b, err = AppendValue(b, Described{f.body.code(), trim(f.body.list())}); err != nil {
			return nil, err
		}
		b = append(b, f.payload...)
	}
	be.PutUint32(b[start:], uint32(len(b)-start))
	return b, nil
}

// readFrame reads one frame of at most limit bytes.
func readFrame(r io.Reader, limit uint32) (frame, error) {
	var head [frameHeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size, offset := be.Uint32(head[:]), uint32(head[4])*4
	switch {
	case size > limit:
		return frame{}, errorf(CondFraming, "frame of %d bytes, allowed are %d", size, limit)
	case offset < frameHeaderSize || offset > size:
		return frame{}, errorf(CondFraming, "frame of %d bytes with its body at %d", size, offset)
	}
	rest := make([]byte, size-frameHeaderSize)
	if _, err := io.ReadFull(r, rest); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	f := frame{kind: head[5]}
	body := rest[offset-frameHeaderSize:]
	switch f.kind {
	case frameTypeAMQP:
		f.channel = be.Uint16(head[6:])
	case frameTypeSASL:
	default:
		return frame{}, errorf(CondFraming, "frame of unknown type %d", f.kind)
	}
	if len(body) == 0 {
		return f, nil
	}
	var err error
	f.body, f.payload, err = readPerformative(body)
	if err != nil {
		return frame{}, errorf(CondDecode, "%v", err)
	}
	if isSASL := f.body.code() >= codeSASLMechanisms; isSASL != (f.kind == frameTypeSASL) {
		return frame{}, errorf(CondFraming, "performative 0x%x in a frame of type %d", f.body.code(), f.kind)
	}
	if len(f.payload) > 0 && f.body.code() != codeTransfer {
		return frame{}, errorf(CondFraming, "%d bytes after performative 0x%x", len(f.payload), f.body.code())
	}
	return f, nil
}

var errNotAMQP = errors.New("the protocol header is not of AMQP 1.0")

// readProtocolHeader reads a protocol header and returns its protocol id.
func readProtocolHeader(r io.Reader) (id byte, err error) {
	var head [protocolHeadSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	if string(head[:4]) != "AMQP" || string(head[5:]) != "\x01\x00\x00" {
		return 0, fmt.Errorf("%w: % x", errNotAMQP, head)
	}
	return head[4], nil
}
