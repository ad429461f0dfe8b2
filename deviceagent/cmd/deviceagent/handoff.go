package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"websocketbridge/deviceagent/handoff"
	"websocketbridge/relay/settings"
	"websocketbridge/signaler"
)

// handoffSettings are a part of config: signals that another program on this
// device hands over.
type handoffSettings struct {
	Address string `envconfig:"HANDOFF" example:"unix:/run/deviceagent/handoff.sock" desc:"for AGENT_SIGNALS=handoff: unix:PATH, http:127.0.0.1:PORT or stdin"`
	Token   string `envconfig:"HANDOFF_TOKEN" secret:"true" desc:"what http: requests carry as Authorization: Bearer; 32 characters or more"`
}

const handoffHelp = `
Beside a program that has the device's connection to the hub already, the agent takes
signals from that program; what to write there is in infra/samples:
  deviceagent --handoff ADDRESS   the same as AGENT_SIGNALS=handoff AGENT_HANDOFF=ADDRESS
  deviceagent handoff [ADDRESS]   hands the signal on standard input to the agent at ADDRESS (or
                                  AGENT_HANDOFF), prints its answer, and fails if that is no
`

// handoffTime is for the whole of a hand-over, between two programs on one machine.
const handoffTime = 10 * time.Second

// source makes the source; bad is told each fault by the variable's name.
func (c handoffSettings) source(in io.Reader, out io.Writer, log *slog.Logger, bad func(name, problem string)) *handoff.Source {
	if c.Address == "" {
		bad("HANDOFF", "is missing; AGENT_SIGNALS=handoff needs an address, as unix:/run/deviceagent/handoff.sock")
		return nil
	}
	at, err := handoff.ParseAddress(c.Address)
	if err != nil {
		bad("HANDOFF", err.Error())
		return nil
	}
	cfg := handoff.Config{Address: at, Token: c.Token, In: in, Out: out, Logger: log}
	faults := unjoin(cfg.Validate())
	for _, err := range faults {
		_, problem, _ := strings.Cut(err.Error(), ": ")
		bad("HANDOFF_TOKEN", problem) // the rest is right by now
	}
	if len(faults) > 0 {
		return nil
	}
	src, err := handoff.New(cfg)
	if err != nil { // Validate has been here
		bad("HANDOFF", err.Error())
		return nil
	}
	return src
}

// handOver is deviceagent handoff: it reads one signal and prints one answer, also
// when there is no agent, so that a script can pass it on as it is.
func handOver(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var c config
	err := settings.Load("AGENT", &c)
	var faults settings.Faults
	if err != nil && !errors.As(err, &faults) {
		return err
	}
	for _, f := range faults { // the agent's other settings are none of this one's business
		if strings.HasPrefix(f.Name, "AGENT_HANDOFF") {
			return errors.New(f.String())
		}
	}
	address := c.Handoff.Address
	switch {
	case len(args) == 1:
		address = args[0]
	case len(args) > 1:
		return fmt.Errorf("handoff takes one address, not %d", len(args))
	case address == "":
		return errors.New("handoff needs the agent's address, as an argument or as AGENT_HANDOFF")
	}
	to, err := handoff.ParseAddress(address)
	if err != nil {
		return fmt.Errorf("handoff: %w", err)
	}
	signal, err := io.ReadAll(io.LimitReader(in, signaler.MaxSize+64)) // a longer one is refused over there
	if err != nil {
		return fmt.Errorf("read the signal: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, handoffTime, fmt.Errorf("no answer within %v", handoffTime))
	defer cancel()
	no, err := handoff.Send(ctx, to, c.Handoff.Token, signal)
	if err != nil {
		no = &signaler.Refusal{Code: "agent_unreachable", Message: err.Error()}
	}
	if _, err := out.Write(handoff.Answer(no)); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	switch {
	case err != nil:
		return err
	case no != nil:
		return &signaler.RefusedError{Refusal: *no}
	}
	return nil
}

// handoffFlag takes --handoff ADDRESS out of args. ok says that it was there.
func handoffFlag(args []string) (address string, ok bool, err error) {
	if len(args) == 0 {
		return "", false, nil
	}
	name, value, joined := strings.Cut(args[0], "=")
	switch {
	case name != "--handoff" && name != "-handoff":
		return "", false, nil
	case joined && len(args) == 1 && value != "":
		return value, true, nil
	case !joined && len(args) == 2 && args[1] != "":
		return args[1], true, nil
	}
	return "", true, errors.New("--handoff takes one address, as --handoff unix:/run/deviceagent/handoff.sock; other settings come from the environment")
}

// unused complains of what only a hand-over needs.
func (c handoffSettings) unused(signals string, bad complain) {
	if c.Address != "" {
		bad("HANDOFF", "is for AGENT_SIGNALS=%s, which is %s", fromHandoff, signals)
	}
}

// ended says that the end of standard input is a way to stop the agent, and no
// fault.
func ended(err error, log *slog.Logger) error {
	if !errors.Is(err, handoff.ErrEnded) {
		return err
	}
	log.Info("standard input has ended")
	return nil
}
