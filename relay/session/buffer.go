package session

import (
	"math/bits"
	"sync"
)

// A chunk holds received bytes until the application reads them: b[r:w].
type chunk struct {
	next *chunk
	r, w int
	b    []byte
}

const (
	minChunkBits = 11       // 2 KiB
	maxChunkBits = 16       // MaxPayload
	behind       = 16 << 10 // bytes of a chunk at least for a reader that is behind: fewer, larger ones
)

// chunks are shared by all sessions: the bytes in flight of an agent with many
// bridges are few, whichever bridge they are on.
var chunks [maxChunkBits - minChunkBits + 1]sync.Pool

func getChunk(n int) *chunk {
	class := max(bits.Len(uint(n-1)), minChunkBits) - minChunkBits
	if c, ok := chunks[class].Get().(*chunk); ok {
		return c
	}
	return &chunk{b: make([]byte, 1<<(class+minChunkBits))}
}

func putChunk(c *chunk) {
	c.next, c.r, c.w = nil, 0, 0
	chunks[bits.Len(uint(len(c.b)-1))-minChunkBits].Put(c)
}

// A queue is what a stream has received and not read. Without bytes it holds
// no chunk. Its memory is at most twice its bytes and a few KiB, however small
// the frames were, because small payloads fill the last chunk first.
type queue struct {
	head, tail *chunk
	size       int // bytes to read
}

func (q *queue) push(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
	q.size += c.w - c.r
}

// add copies p to the end of the queue.
func (q *queue) add(p []byte) {
	for len(p) > 0 {
		if q.tail == nil || q.tail.w == len(q.tail.b) {
			n := min(len(p), MaxPayload)
			if q.tail != nil {
				n = max(n, behind)
			}
			q.push(getChunk(n))
		}
		n := copy(q.tail.b[q.tail.w:], p)
		q.tail.w += n
		q.size += n
		p = p[n:]
	}
}

// read moves bytes into p.
func (q *queue) read(p []byte) (n int) {
	for n < len(p) && q.head != nil {
		c := q.head
		m := copy(p[n:], c.b[c.r:c.w])
		c.r += m
		n += m
		q.size -= m
		if c.r == c.w {
			putChunk(q.pop())
		}
	}
	return n
}

// pop takes the first chunk out; there must be one.
func (q *queue) pop() *chunk {
	c := q.head
	q.head = c.next
	if q.head == nil {
		q.tail = nil
	}
	c.next = nil
	q.size -= c.w - c.r
	return c
}

// unpop puts back what could not be used of a chunk.
func (q *queue) unpop(c *chunk) {
	c.next = q.head
	q.head = c
	if q.tail == nil {
		q.tail = c
	}
	q.size += c.w - c.r
}

func (q *queue) drop() {
	for q.head != nil {
		putChunk(q.pop())
	}
}

// A frameBuf is where one outgoing frame is built: the transport's headroom,
// the header, the payload.
type frameBuf struct{ b []byte }

const (
	// dataSize is the longest DATA this side sends: with all headers, WebSocket's, TLS's
	// and TCP's, it fits one segment of 64 KiB, the largest that the loopback interface and
	// segmentation offload know. A byte more would make two, and cost a third more CPU. At
	// 10 Mbit/s it takes 46 ms, for which the other streams wait in turn.
	dataSize = 56 << 10
	// idleSize is what ReadFrom waits with for a source that has little to say,
	// so that a thousand idle streams hold 2 MiB and not 32.
	idleSize = 2 << 10
)

func (s *Session) getFrame(size int) *frameBuf {
	pool := &s.frames
	if size == idleSize {
		pool = &s.idleFrames
	}
	if f, ok := pool.Get().(*frameBuf); ok {
		return f
	}
	return &frameBuf{make([]byte, s.headroom+headerSize+size)}
}

func (s *Session) putFrame(f *frameBuf) {
	if len(f.b) == s.headroom+headerSize+idleSize {
		s.idleFrames.Put(f)
	} else {
		s.frames.Put(f)
	}
}
