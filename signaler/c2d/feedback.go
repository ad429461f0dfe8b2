package c2d

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/go-amqp"
)

// feedbackAddress is the hub's one queue of feedback.
const feedbackAddress = "/messages/serviceBound/feedback"

// maxFeedback is in bytes; a batch of the hub has at most 64 records.
const maxFeedback = 1 << 20

// A Feedback is what became of a message.
type Feedback struct {
	MessageID   string // the bridge's ID; another application's may be anything
	DeviceID    string
	Status      string // Success, Expired, DeliveryCountExceeded, Rejected or Purged
	Description string
	Enqueued    time.Time // when it became so; zero: the hub did not say
}

// readFeedback hands records to Config.Feedback until the connection is lost. A
// link that breaks alone, or is not allowed, is attached again.
func (s *Signaler) readFeedback(c *connection) {
	for failures := 0; ; failures++ {
		start := time.Now()
		err := s.feedbackLink(c)
		if c.shim.reason() != nil {
			return
		}
		if time.Since(start) > settled {
			failures = 0
		}
		s.news.noFeedback(err)
		if pause(c.shim.ctx, backoff(failures, s.cfg.RetryMin, s.cfg.RetryMax)) != nil {
			return
		}
	}
}

func (s *Signaler) feedbackLink(c *connection) error {
	ctx := c.shim.ctx
	attach, cancel := context.WithTimeoutCause(ctx, s.cfg.DialTimeout, fmt.Errorf("no answer within %v", s.cfg.DialTimeout))
	defer cancel()
	session, err := c.amqp.NewSession(attach, nil)
	if err != nil {
		return openError("begin a session", causeOr(attach, err))
	}
	var receiver *amqp.Receiver
	defer func() { // waits for go-amqp's goroutines
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		if receiver != nil {
			receiver.Close(ctx)
		}
		session.Close(ctx)
	}()
	receiver, err = session.NewReceiver(attach, feedbackAddress, &amqp.ReceiverOptions{Credit: 8, MaxMessageSize: maxFeedback})
	if err != nil {
		return openError("attach to "+feedbackAddress, causeOr(attach, err))
	}
	s.news.feedback()
	for {
		m, err := receiver.Receive(ctx)
		if err != nil {
			return openError("read feedback", causeOr(ctx, err))
		}
		records, err := parseFeedback(m.GetData())
		if err != nil {
			s.news.noFeedback(err)
			// Accepting it would say that somebody read it; releasing it would bring it back.
			if err := receiver.RejectMessage(ctx, m, &amqp.Error{Condition: amqp.ErrCondDecodeError}); err != nil {
				return openError("reject feedback", causeOr(ctx, err))
			}
			continue
		}
		for _, r := range records {
			s.cfg.Feedback(r)
		}
		if err := receiver.AcceptMessage(ctx, m); err != nil {
			return openError("accept feedback", causeOr(ctx, err))
		}
	}
}

// parseFeedback reads a batch. Hubs leave statusCode out when it is Success.
func parseFeedback(b []byte) ([]Feedback, error) {
	var batch []struct {
		OriginalMessageID string `json:"originalMessageId"`
		DeviceID          string `json:"deviceId"`
		StatusCode        string `json:"statusCode"`
		Description       string `json:"description"`
		EnqueuedTimeUTC   string `json:"enqueuedTimeUtc"`
	}
	if err := json.Unmarshal(b, &batch); err != nil {
		return nil, errors.New("feedback is not a JSON array of records")
	}
	records := make([]Feedback, 0, len(batch))
	for _, r := range batch {
		at, _ := time.Parse(time.RFC3339, r.EnqueuedTimeUTC) // not worth losing a record for
		if r.StatusCode == "" {
			r.StatusCode = "Success"
		}
		records = append(records, Feedback{r.OriginalMessageID, r.DeviceID, r.StatusCode, r.Description, at})
	}
	return records, nil
}
