package emulator

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// A feedbackStatus is a statusCode of a feedback record.
type feedbackStatus string

const (
	statusSuccess       feedbackStatus = "Success"
	statusExpired       feedbackStatus = "Expired"
	statusDeliveryCount feedbackStatus = "DeliveryCountExceeded"
	statusRejected      feedbackStatus = "Rejected"
	statusPurged        feedbackStatus = "Purged"
)

var descriptions = map[feedbackStatus]string{
	statusSuccess: "Success", statusExpired: "Message Expired", statusDeliveryCount: "Delivery count exceeded",
	statusRejected: "Message rejected", statusPurged: "Message purged",
}

type feedbackRecord struct {
	OriginalMessageID  string         `json:"originalMessageId"`
	Description        string         `json:"description"`
	DeviceGenerationID string         `json:"deviceGenerationId"`
	DeviceID           string         `json:"deviceId"`
	EnqueuedTimeUTC    string         `json:"enqueuedTimeUtc"`
	StatusCode         feedbackStatus `json:"statusCode"`
}

// A feedbackBatch is one message of the feedback queue.
type feedbackBatch struct {
	ID       string
	Enqueued time.Time
	Records  []feedbackRecord
}

// body is the message's data: a JSON array.
func (b feedbackBatch) body() []byte {
	out, _ := json.Marshal(b.Records) // of strings
	return out
}

// The properties of a feedback message.
const (
	feedbackContentType = "application/vnd.microsoft.iothub.feedback.json"
	feedbackEnqueued    = "iothub-enqueuedtime" // annotation with feedbackBatch.Enqueued
)

// feedback is the hub's queue. Hub.mu guards it.
type feedback struct {
	records []feedbackRecord // of the next batch
	due     *alarm
	last    time.Time // when batches were last cut, or the hub was made
	batches []*queuedBatch
	changed chan struct{} // closed and replaced when a batch may be taken
}

type queuedBatch struct {
	feedbackBatch
	deliveries int
	locked     bool
	lock       uint64
	unlock     *alarm
	expiry     *alarm
	gone       bool
}

// maxFeedback is how many batches nobody fetched are kept; then the oldest goes.
const maxFeedback = 1000

// feedbackFor notes what became of a message, if its ack asks for it. The caller
// holds mu.
func (h *Hub) feedbackFor(r *record, m *c2dMessage, s feedbackStatus) {
	if !(m.Ack == "full" || m.Ack == "positive" && s == statusSuccess || m.Ack == "negative" && s != statusSuccess) {
		return
	}
	if h.strikeLocked(h.faults.Feedback, r.id.Device) {
		return
	}
	now := time.Now()
	f := &h.feedback
	f.records = append(f.records, feedbackRecord{
		OriginalMessageID: m.ID, Description: descriptions[s], DeviceGenerationID: r.generation, DeviceID: r.id.Device,
		EnqueuedTimeUTC: stamp(now), StatusCode: s,
	})
	h.stats.FeedbackRecords++
	switch {
	case len(f.records) >= feedbackBatchSize:
		h.cutBatch()
	case f.due == nil:
		// The clock of batches goes on ticking while there is nothing to send.
		every := h.cfg.FeedbackEvery
		f.due = h.at(f.last.Add((now.Sub(f.last)/every+1)*every), h.cutBatch)
	}
}

// cutBatch makes a batch of the records so far. The caller holds mu.
func (h *Hub) cutBatch() {
	f := &h.feedback
	h.cancel(f.due)
	f.due, f.last = nil, time.Now()
	if len(f.records) == 0 {
		return
	}
	b := &queuedBatch{feedbackBatch: feedbackBatch{ID: newETag(), Enqueued: f.last, Records: f.records}}
	f.records = nil
	b.expiry = h.at(f.last.Add(h.cfg.FeedbackLife), func() {
		if !b.locked {
			h.dropBatch(b)
		}
	})
	if f.batches = append(f.batches, b); len(f.batches) > maxFeedback {
		h.dropBatch(f.batches[0])
	}
	h.feedbackChanged()
}

func (h *Hub) feedbackChanged() {
	close(h.feedback.changed)
	h.feedback.changed = make(chan struct{})
}

// dropBatch takes a batch out for good. The caller holds mu.
func (h *Hub) dropBatch(b *queuedBatch) {
	b.gone = true
	h.cancel(b.expiry)
	h.cancel(b.unlock)
	h.feedback.batches = slices.DeleteFunc(h.feedback.batches, func(q *queuedBatch) bool { return q == b })
}

// receiveFeedback waits for a batch that nobody else has, or for ctx's end.
// Readers compete. done settles it: accepted, it is gone; otherwise another reader
// may have it, up to ten times. Without done it is queued again after a minute.
func (h *Hub) receiveFeedback(ctx context.Context) (batch feedbackBatch, done func(accepted bool), err error) {
	for {
		h.mu.Lock()
		b, changed := h.takeBatch(), h.feedback.changed
		h.mu.Unlock()
		if b != nil {
			lock := b.lock
			return b.feedbackBatch, func(accepted bool) { h.settleBatch(b, lock, accepted) }, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return feedbackBatch{}, nil, context.Cause(ctx)
		}
	}
}

// takeBatch locks the first batch that is not. The caller holds mu.
func (h *Hub) takeBatch() *queuedBatch {
	for _, b := range h.feedback.batches {
		if b.locked {
			continue
		}
		h.lastLock++
		b.locked, b.lock = true, h.lastLock
		lock := b.lock
		b.unlock = h.at(time.Now().Add(h.cfg.FeedbackLock), func() { h.unlockBatch(b, lock) })
		return b
	}
	return nil
}

func (h *Hub) settleBatch(b *queuedBatch, lock uint64, accepted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case b.gone || !b.locked || b.lock != lock: // the lock was lost
	case accepted:
		h.dropBatch(b)
	default:
		if b.deliveries++; b.deliveries >= h.cfg.MaxDeliveries {
			h.dropBatch(b)
			return
		}
		h.unlockBatch(b, lock)
	}
}

// unlockBatch gives a batch to the next reader. The caller holds mu.
func (h *Hub) unlockBatch(b *queuedBatch, lock uint64) {
	if b.gone || !b.locked || b.lock != lock {
		return
	}
	h.cancel(b.unlock)
	b.locked = false
	if !time.Now().Before(b.Enqueued.Add(h.cfg.FeedbackLife)) {
		h.dropBatch(b)
		return
	}
	h.feedbackChanged()
}

// forgetFeedback drops the records of a deleted identity that no reader has. The
// caller holds mu.
func (h *Hub) forgetFeedback(r *record) {
	of := func(rec feedbackRecord) bool {
		return rec.DeviceID == r.id.Device && rec.DeviceGenerationID == r.generation
	}
	f := &h.feedback
	f.records = slices.DeleteFunc(f.records, of)
	for _, b := range slices.Clone(f.batches) {
		if b.locked {
			continue
		}
		if b.Records = slices.DeleteFunc(b.Records, of); len(b.Records) == 0 {
			h.dropBatch(b)
		}
	}
}
