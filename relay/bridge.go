package relay

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
	"websocketbridge/relay/pump"
	"websocketbridge/relay/token"
)

// state is where a bridge is in its life; doc.go draws it.
type state int32

const (
	waiting state = iota // the device has been or is being told
	joining              // its accept has been taken; 101s are being written
	open                 // bytes flow
	closed
)

// An aim is what a requester wants to reach, as the query has it.
type aim struct {
	deviceID    string
	target      string
	requestData string
}

// A bridge belongs to the goroutine that serves its requester. Others only move
// its state and hand something over.
type bridge struct {
	aim
	id        token.ID
	principal *auth.Principal
	from      string   // the requester's address
	signed    bool     // the URL is the credential
	offered   []string // subprotocols the device may pick from
	granted   bool     // the principal may have it
	recorded  bool     // the audit log has that it opens
	opened    bool     // run has it; for the goroutine that serves the requester
	charged   bool     // its address has been asked for this connect
	ticket    token.ID // of a signed URL that works once
	early     bool     // the requester's 101 is out, with offered[0] if there is one
	created   time.Time
	journey

	permit policy.Decision // what allowed it; not changed any more once b is in the table
	lapse  *time.Timer     // looks whether it still does; nil: nobody asks again

	waits   bool // counts as waiting in the table, whose lock guards it
	state   atomic.Int32
	arrived chan arrival // cap 1: sent by whoever moved waiting → joining
	ended   chan error   // cap 1: sent by whoever moved waiting → closed from outside: a reject, a kill

	// live ends when the bridge may live no longer; end says why, to both sides if it
	// is open.
	live context.Context
	end  context.CancelCauseFunc
	// The four below are guarded by the table's lock; legs and via are set as the bridge
	// opens.
	leg    *pump.Leg // the requester's
	device *pump.Leg
	leaves bool   // the requester is to be asked to move as soon as it is open
	via    string // the node that passed the device's accept on; empty: the device came here
}

// arrival is the device's end, or why its 101 failed.
type arrival struct {
	at          time.Time // the device's request was here
	leg         *pump.Leg
	subprotocol string
	via         string // the node that passed it on
	err         error
}

// move changes the state if it is still from. Exactly one of two racing moves
// wins.
func (b *bridge) move(from, to state) bool {
	return b.state.CompareAndSwap(int32(from), int32(to))
}

// pick chooses the subprotocol for both sides: the first the device names that
// the requester offered.
func (b *bridge) pick(device []string) string {
	for _, p := range device {
		for _, q := range b.offered {
			if p == q {
				return p
			}
		}
	}
	return ""
}

// table holds this node's bridges and their limits. A reservation is the entry
// itself: made by add, given back exactly once by remove.
type table struct {
	maxBridges, maxWaiting, maxPerDevice, maxPerPrincipal int // 0: no limit

	mu       sync.Mutex // guards all below
	draining bool
	moving   bool // requesters are to move
	bridges  map[token.ID]*bridge
	devices  map[string]int // bridges of each
	payers   map[string]int
	waiting  int                  // those counted against maxWaiting
	held     map[holder]int       // bridges that count against a cap of the policy
	paced    map[holder]time.Time // until when connects that count against such a cap reach
	sweep    int                  // how many of these are worth a look for old ones
	changed  chan struct{}        // closed and replaced when a bridge goes
	deadline time.Time            // of the drain
	// Payload bytes of bridges that are not in the table any more.
	toDevice, toRequester int64
}

func newTable(c Config) *table {
	return &table{
		maxBridges: c.MaxBridges, maxWaiting: c.MaxWaiting, maxPerDevice: c.MaxPerDevice, maxPerPrincipal: c.MaxPerPrincipal,
		bridges: make(map[token.ID]*bridge), devices: make(map[string]int), payers: make(map[string]int),
		held: make(map[holder]int), paced: make(map[holder]time.Time), sweep: minSweep, changed: make(chan struct{}),
	}
}

// add reserves room for b.
func (t *table) add(b *bridge) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	payer := b.payer()
	switch {
	case t.draining:
		return errDraining
	case t.maxPerDevice > 0 && t.devices[b.deviceID] >= t.maxPerDevice:
		return &limitError{limitDeviceBridges, fmt.Sprintf("device %q has %d of at most %d bridges", b.deviceID, t.devices[b.deviceID], t.maxPerDevice), 0}
	case payer != "" && t.maxPerPrincipal > 0 && t.payers[payer] >= t.maxPerPrincipal:
		return &limitError{limitPrincipalBridges, fmt.Sprintf("%q has %d of at most %d bridges", payer, t.payers[payer], t.maxPerPrincipal), 0}
	case len(t.bridges) >= t.maxBridges:
		return &limitError{limitBridges, fmt.Sprintf("the relay has %d of at most %d bridges", len(t.bridges), t.maxBridges), 0}
	case t.waiting >= t.maxWaiting:
		return &limitError{limitWaiting, fmt.Sprintf("%d of at most %d bridges wait for their device", t.waiting, t.maxWaiting), 0}
	}
	if err := t.capped(b); err != nil {
		return err
	}
	t.bridges[b.id] = b
	t.count(b, 1)
	t.devices[b.deviceID]++
	t.payers[payer]++
	b.waits = true
	t.waiting++
	return nil
}

// opened ends b's part in the limit of waiting bridges, and says whether its requester
// is to move at once.
func (t *table) opened(b *bridge, requester, device *pump.Leg, via string) (move bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unwait(b)
	b.leg, b.device, b.via = requester, device, via
	return t.moving || b.leaves
}

func (t *table) unwait(b *bridge) {
	if b.waits {
		b.waits = false
		t.waiting--
	}
}

// remove gives b's room back. A bridge that has none may be removed, too.
func (t *table) remove(b *bridge) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bridges[b.id] != b {
		return
	}
	delete(t.bridges, b.id)
	if b.leg != nil {
		t.toDevice += b.device.Passed()
		t.toRequester += b.leg.Passed()
	}
	t.count(b, -1)
	less(t.devices, b.deviceID)
	less(t.payers, b.payer())
	t.unwait(b)
	b.end(nil)
	close(t.changed)
	t.changed = make(chan struct{})
}

func less(counts map[string]int, key string) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

func (t *table) get(id token.ID) *bridge {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bridges[id]
}

// drain refuses new bridges from now on, and returns the requesters of open ones. move:
// they are to be asked to move, and those of bridges that open later, too. At the first
// call deadline is when open bridges are closed.
func (t *table) drain(move bool, deadline time.Time) (open []*pump.Leg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.draining {
		t.deadline = deadline
	}
	t.draining, t.moving = true, t.moving || move
	for _, b := range t.bridges {
		if b.leg != nil {
			open = append(open, b.leg)
		}
	}
	return open
}

// toMove returns the requester's end of an open bridge, or nil: then the bridge is gone,
// or its requester will be asked to move as it opens.
func (t *table) toMove(id token.ID) *pump.Leg {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.bridges[id]
	if b == nil {
		return nil
	}
	b.leaves = true
	return b.leg
}

func (t *table) isDraining() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.draining
}

// left returns how many bridges there are, and a channel closed at the next change.
func (t *table) left() (int, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.bridges), t.changed
}
