package c2d

import (
	"encoding/binary"
	"fmt"

	"github.com/Azure/go-amqp"
)

// Conditions of our own. The hub never says them; rewrite puts them where it said
// nothing that go-amqp would pass on.
const (
	condReleased  = "websocketbridge:released"
	condModified  = "websocketbridge:modified"
	condRejected  = "websocketbridge:rejected"
	condNoOutcome = "websocketbridge:no-outcome"
)

// maxRange is how many deliveries one disposition may settle: go-amqp looks at
// every number in the range, and never ends if that ends with the last of all.
const maxRange = 1 << 16

// A rewriter mends what comes from the hub and go-amqp v0.18.1 takes wrongly; see
// doc.go. It is used by one goroutine.
type rewriter struct {
	ours map[uint16]uint16 // the hub's number of a channel → our number of it
	// next is the number that our next transfer on a channel of ours will have.
	next func(channel uint16) uint32
	// ended is told that the hub ended a link (code is codeDetach) or session
	// (codeEnd) on a channel of ours, or the connection (codeClose). It must not block.
	ended func(code byte, channel uint16, err *amqp.Error)
}

// rewrite appends the unit u to b: as it is, mended, or not at all.
func (r *rewriter) rewrite(b, u []byte) ([]byte, error) {
	code := performative(u)
	switch code {
	case codeBegin, codeFlow, codeDisposition, codeDetach, codeEnd, codeClose:
	default:
		return append(b, u...), nil
	}
	list, ok := fields(u[headerSize+3:])
	if !ok {
		return nil, fmt.Errorf("%w: performative %#x is not a list", errProtocol, code)
	}
	switch code {
	case codeBegin:
		if n, ok := number(field(list, 0)); ok && n <= 0xffff {
			r.ours[channel(u)] = uint16(n)
		}
	case codeFlow:
		return r.flow(b, u, list)
	case codeDisposition:
		return r.disposition(b, u, list)
	case codeDetach:
		r.ended(code, r.ours[channel(u)], remoteError(field(list, 2)))
	case codeEnd, codeClose:
		r.ended(code, r.ours[channel(u)], remoteError(field(list, 0)))
	}
	return append(b, u...), nil
}

// flow gives a FLOW the next-incoming-id that some gateways leave out.
func (r *rewriter) flow(b, u []byte, list [][]byte) ([]byte, error) {
	if field(list, 4) != nil && field(list, 6) == nil {
		return nil, fmt.Errorf("%w: a flow of a link without link-credit", errProtocol) // go-amqp would dereference nil
	}
	if len(list) == 0 || field(list, 0) != nil {
		return append(b, u...), nil
	}
	ours, ok := r.ours[channel(u)]
	if !ok {
		return append(b, u...), nil // no session there; go-amqp says so
	}
	list[0] = binary.BigEndian.AppendUint32([]byte{0x70}, r.next(ours))
	return appendFrame(b, u, list...), nil
}

// disposition makes every outcome but accepted a settled rejection with an error:
// the one form in which go-amqp tells the sender of a message that it failed.
func (r *rewriter) disposition(b, u []byte, list [][]byte) ([]byte, error) {
	first, ok := number(field(list, 1))
	last, given := number(field(list, 2))
	if !ok || given && last-first >= maxRange {
		return nil, fmt.Errorf("%w: a disposition of %d deliveries", errProtocol, uint64(last-first)+1)
	}
	if !isTrue(list[0]) {
		return append(b, u...), nil // of what the hub sent
	}
	settled := isTrue(field(list, 3))
	code, state, ok := described(field(list, 4))
	var no []byte
	switch {
	case ok && code == codeAccepted:
		return append(b, u...), nil
	case ok && code == codeRejected && remoteError(field(state, 0)) != nil:
		if settled {
			return append(b, u...), nil
		}
		no = list[4]
	case ok && code == codeRejected:
		no = rejected(condRejected, "the hub rejected the message and did not say why")
	case ok && code == codeReleased:
		no = rejected(condReleased, "the hub released the message: it was not queued")
	case ok && code == codeModified:
		no = rejected(condModified, "the hub modified the message: it was not queued")
	case !settled:
		return b, nil // received, or nothing: the outcome is still to come; go-amqp would take it for success
	default:
		no = rejected(condNoOutcome, "the hub settled the message without an outcome")
	}
	for len(list) < 5 {
		list = append(list, []byte{0x40})
	}
	list[3], list[4] = []byte{0x41}, no
	return appendFrame(b, u, list...), nil
}

// rejected encodes the outcome of that name.
func rejected(condition, description string) []byte {
	e := appendList([]byte{0, 0x53, codeError}, appendText(nil, 0xb3, condition), appendText(nil, 0xb1, description))
	return appendList([]byte{0, 0x53, codeRejected}, e)
}

// A tally counts the transfers in what we write. It needs the start of each frame
// only and keeps no more.
type tally struct {
	head [headerSize + 3]byte // of the unit under way
	n    int                  // bytes of head that are there
	left int                  // bytes of the unit after them
	each func(code byte, channel uint16)
}

func (t *tally) write(p []byte) {
	for len(p) > 0 {
		if t.left > 0 {
			n := min(t.left, len(p))
			t.left -= n
			p = p[n:]
			continue
		}
		want := headerSize
		if t.n >= headerSize {
			want = min(int(binary.BigEndian.Uint32(t.head[:])), len(t.head))
		}
		n := copy(t.head[t.n:want], p)
		t.n += n
		p = p[n:]
		if t.n < headerSize {
			return
		}
		size := int(binary.BigEndian.Uint32(t.head[:]))
		if string(t.head[:4]) == "AMQP" || size < headerSize {
			size = headerSize
			binary.BigEndian.PutUint32(t.head[:], headerSize) // a protocol header
		}
		if t.n < min(size, len(t.head)) {
			continue
		}
		if code := performative(t.head[:t.n]); code != 0 {
			t.each(code, channel(t.head[:]))
		}
		t.left, t.n = size-t.n, 0
	}
}
