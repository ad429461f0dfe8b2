package emulator

import (
	"context"

	"websocketbridge/test/emulator/amqp"
)

// feedbackOutlet gives batches of feedback to one reader. Readers compete, so it
// takes a batch only if the reader has credit.
type feedbackOutlet struct {
	silentOutlet
	s    *amqp.Sender
	stop context.CancelFunc
}

func (ac *amqpConn) newFeedbackOutlet(s *amqp.Sender, link *amqpLink) *feedbackOutlet {
	ctx, cancel := context.WithCancel(ac.ctx)
	o := &feedbackOutlet{silentOutlet{ac, link}, s, cancel}
	ac.work.Go(func() { o.run(ctx) })
	return o
}

// Detached implements amqp.Outlet.
func (o *feedbackOutlet) Detached(err error) {
	o.stop()
	o.silentOutlet.Detached(err)
}

func (o *feedbackOutlet) run(ctx context.Context) {
	for o.s.Ready(ctx) == nil {
		batch, done, err := o.ac.h.receiveFeedback(ctx)
		if err != nil {
			return
		}
		push := o.s.Push(feedbackMessage(o.ac.h.cfg.HostName, batch), func(out amqp.Outcome) {
			switch out.(type) {
			case amqp.Accepted, amqp.Rejected: // a reader that rejects wants no more of it
				done(true)
			default:
				done(false)
			}
		})
		if push != nil { // the reader took its credit back, or left
			done(false)
		}
	}
}

func feedbackMessage(host string, b feedbackBatch) *amqp.Message {
	return &amqp.Message{
		Annotations: amqp.Map{{Key: amqp.Symbol(feedbackEnqueued), Value: amqp.TimestampOf(b.Enqueued)}},
		Properties:  &amqp.Properties{MessageID: b.ID, UserID: []byte(host), ContentType: feedbackContentType},
		Data:        [][]byte{b.body()},
	}
}
