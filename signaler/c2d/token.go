package c2d

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/Azure/go-amqp"

	"websocketbridge/signaler"
	"websocketbridge/signaler/credential"
)

// tokenLinks show tokens to the hub: claims-based security, AMQP's working draft
// amqp-cbs-v1.0. They are used by one goroutine.
type tokenLinks struct {
	session  *amqp.Session
	name     string // the hub's, as tokens of keys have it
	host     string
	sender   *amqp.Sender // nil: to be attached
	receiver *amqp.Receiver
}

// put returns nil when the hub took the token, and a *tokenError if it did not.
func (l *tokenLinks) put(ctx context.Context, tok credential.Token, crew *crew) error {
	err := l.try(ctx, tok, crew)
	if _, ok := errors.AsType[*tokenError](err); err != nil && !ok {
		l.detach() // they may be gone, or owe an answer to another question
	}
	return err
}

func (l *tokenLinks) try(ctx context.Context, tok credential.Token, crew *crew) (err error) {
	if l.receiver == nil {
		if l.receiver, err = l.session.NewReceiver(ctx, "$cbs", &amqp.ReceiverOptions{Credit: 4, MaxMessageSize: maxFrame}); err != nil {
			l.receiver = nil
			return err
		}
	}
	if l.sender == nil {
		if l.sender, err = l.session.NewSender(ctx, "$cbs", &amqp.SenderOptions{IgnoreDispositionErrors: true}); err != nil {
			l.sender = nil
			return err
		}
	}
	kind, name := "servicebus.windows.net:sastoken", l.name
	if tok.Kind == credential.Bearer {
		kind, name = "Bearer", "amqps://"+l.host+":5671/"
	}
	id, replyTo, to := randomID(), "cbs", "$cbs"
	m := &amqp.Message{
		Properties:            &amqp.MessageProperties{MessageID: id, To: &to, ReplyTo: &replyTo},
		ApplicationProperties: map[string]any{"operation": "put-token", "type": kind, "name": name},
		Value:                 tok.Text,
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sender := l.sender
	if !crew.Go(func() {
		if err := sender.Send(ctx, m); err != nil {
			cancel(err)
		}
	}) {
		return errLost
	}
	for { // the answer may come before the request is settled
		answer, err := l.receiver.Receive(ctx)
		if err != nil {
			return causeOr(ctx, err)
		}
		if err := l.receiver.AcceptMessage(ctx, answer); err != nil {
			return causeOr(ctx, err)
		}
		if p := answer.Properties; p != nil && p.CorrelationID != nil && p.CorrelationID != any(id) {
			continue // to a question that we gave up
		}
		return verdict(answer)
	}
}

func verdict(answer *amqp.Message) error {
	status, err := strconv.Atoi(fmt.Sprint(answer.ApplicationProperties["status-code"])) // any integer type
	if err != nil {
		return fmt.Errorf("%w: the answer to put-token has no status-code", errProtocol)
	}
	if status/100 == 2 {
		return nil
	}
	text, _ := answer.ApplicationProperties["status-description"].(string)
	return &tokenError{status, text}
}

// detach forgets the links. A hub that does not answer is not waited for; what is
// left of them ends with the session.
func (l *tokenLinks) detach() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if l.sender != nil {
		l.sender.Close(ctx)
	}
	if l.receiver != nil {
		l.receiver.Close(ctx)
	}
	l.sender, l.receiver = nil, nil
}

// close waits for the links and the session of a connection that is gone.
func (l *tokenLinks) close(ctx context.Context) {
	l.detach()
	l.session.Close(ctx)
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// noToken explains why there is no token to show: whoever gives them said no, or
// could not be asked.
func noToken(ctx context.Context, err error) error {
	var u interface{ Unavailable() bool } // package entra's
	if ctx.Err() != nil || errors.As(err, &u) && u.Unavailable() {
		return openError("get a token", causeOr(ctx, err))
	}
	return fmt.Errorf("%w: get a token: %w", signaler.ErrUnauthorized, err)
}
