package mqtt

import "sync"

// An outbox is what waits to be written, oldest first.
type outbox struct {
	limit int

	mu     sync.Mutex
	change *sync.Cond // items or closed has changed
	items  []item     // guarded by mu, as are those below
	bytes  int
	held   bool // until release, nothing is written
	closed bool
}

// An item is one packet.
type item struct {
	data []byte
	cut  bool // after it, the connection dies
	hold bool // it, and what comes after it, waits for release
}

func newOutbox(limit int) *outbox {
	o := &outbox{limit: limit}
	o.change = sync.NewCond(&o.mu)
	return o
}

// put adds a packet. Without room it waits, or fails with ErrBacklog.
func (o *outbox) put(it item, wait bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && o.bytes > 0 && o.bytes+len(it.data) > o.limit {
		if !wait {
			return ErrBacklog
		}
		o.change.Wait()
	}
	if o.closed {
		return ErrClosed
	}
	o.items = append(o.items, it)
	o.bytes += len(it.data)
	o.held = o.held || it.hold
	o.change.Broadcast()
	return nil
}

// release lets out what a packet with hold keeps back.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = false
	o.change.Broadcast()
}

// batchBytes is how much one write has, if its first packet is not larger.
const batchBytes = 64 << 10

// take returns packets to write, none when the outbox is closed. written says
// when they no longer count.
func (o *outbox) take() (batch []item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && (o.held || len(o.items) == 0) {
		o.change.Wait()
	}
	if o.closed {
		return nil
	}
	size, n := 0, 0
	for n < len(o.items) && (n == 0 || size+len(o.items[n].data) <= batchBytes && !o.items[n-1].cut) {
		size += len(o.items[n].data)
		n++
	}
	batch = o.items[:n:n]
	o.items = o.items[n:]
	return batch
}

func (o *outbox) written(batch []item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, it := range batch {
		o.bytes -= len(it.data)
	}
	o.change.Broadcast()
}

// close throws away what waits and wakes everybody.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.items = true, nil
	o.change.Broadcast()
}
