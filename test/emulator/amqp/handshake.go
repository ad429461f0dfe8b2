package amqp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// handshake is everything up to both OPENs.
func (c *Conn) handshake() error {
	c.nc.SetReadDeadline(time.Now().Add(c.server.cfg.HandshakeTimeout))
	if err := c.headers(); err != nil {
		return err
	}
	f, err := readFrame(c.r, c.server.cfg.MaxFrameSize)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.open(nil)
			c.sendFrame(0, &closing{e}, nil)
		}
		return fmt.Errorf("read OPEN: %w", err)
	}
	peer, ok := f.body.(*open)
	if !ok {
		return errors.New("the first frame is no OPEN")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open(peer)
	err = c.ask(func() error { return c.h.Open(c, peer.peer()) })
	if err != nil {
		c.close(asError(err)) // and wait for the answer, as after any other
	}
	return nil
}

// open answers an OPEN; nil: one that could not be read.
func (c *Conn) open(peer *open) {
	cfg := c.server.cfg
	idle := uint32(cfg.IdleTimeout.Milliseconds())
	c.maxFrame = cfg.MaxFrameSize
	if peer != nil {
		p := peer.peer()
		c.maxFrame = max(min(c.maxFrame, p.MaxFrameSize), minMaxFrameSize)
		c.chanMax = min(c.chanMax, p.ChannelMax)
		if p.IdleTimeout > 0 {
			c.heartbeat = max(p.IdleTimeout/2, time.Millisecond)
		}
	}
	c.sendFrame(0, &open{containerID: cfg.ContainerID, maxFrameSize: &cfg.MaxFrameSize, channelMax: &cfg.ChannelMax, idleTimeOut: &idle}, nil)
}

func (p *open) peer() Peer {
	peer := Peer{ContainerID: p.containerID, Hostname: p.hostname, MaxFrameSize: 1<<32 - 1, ChannelMax: 1<<16 - 1, Properties: p.properties}
	if p.maxFrameSize != nil {
		peer.MaxFrameSize = *p.maxFrameSize
	}
	if p.channelMax != nil {
		peer.ChannelMax = *p.channelMax
	}
	if p.idleTimeOut != nil {
		peer.IdleTimeout = time.Duration(*p.idleTimeOut) * time.Millisecond
	}
	return peer
}

// headers agrees on the protocol. A header that is not wanted is answered with the
// one that is, before the connection ends; part 2, section 2.2.
func (c *Conn) headers() error {
	mode := SASLMode(c.server.sasl.Load())
	wanted := byte(protocolAMQP)
	if mode == SASLRequired {
		wanted = protocolSASL
	}
	id, err := readProtocolHeader(c.r)
	if errors.Is(err, errNotAMQP) {
		c.writeBytes(protocolHeader(wanted))
	}
	if err != nil {
		return err
	}
	if id != wanted && (mode != SASLOptional || id != protocolSASL) {
		c.writeBytes(protocolHeader(wanted))
		return fmt.Errorf("protocol id %d, wanted is %d", id, wanted)
	}
	c.writeBytes(protocolHeader(id))
	if id == protocolAMQP {
		return nil
	}
	if err := c.sasl(); err != nil {
		return err
	}
	id, err = readProtocolHeader(c.r)
	if err != nil && !errors.Is(err, errNotAMQP) {
		return err
	}
	c.writeBytes(protocolHeader(protocolAMQP))
	if err == nil && id != protocolAMQP {
		err = fmt.Errorf("protocol id %d after SASL", id)
	}
	return err
}

func (c *Conn) sasl() error {
	c.writeSASL(&saslMechanisms{c.server.cfg.Mechanisms})
	f, err := readFrame(c.r, minMaxFrameSize+saslSlack)
	if err != nil {
		return fmt.Errorf("read SASL-INIT: %w", err)
	}
	init, ok := f.body.(*saslInit)
	if !ok {
		return errors.New("the first SASL frame is no SASL-INIT")
	}
	login, err := init.login()
	if err == nil && !slices.Contains(c.server.cfg.Mechanisms, init.mechanism) {
		err = fmt.Errorf("SASL mechanism %q was not offered", init.mechanism)
	}
	if err == nil {
		c.mu.Lock()
		err = c.ask(func() error { return c.h.Login(login) })
		c.mu.Unlock()
	}
	if err != nil {
		c.writeSASL(&saslOutcome{result: 1})
		return fmt.Errorf("SASL: %w", err)
	}
	c.writeSASL(&saslOutcome{})
	return nil
}

// saslSlack is what a SASL frame may be above the 512 bytes of the standard: a SAS
// token, or a bearer token as password, does not fit.
const saslSlack = 16 << 10

func (p *saslInit) login() (Login, error) {
	l := Login{Mechanism: p.mechanism}
	if p.mechanism != "PLAIN" {
		return l, nil
	}
	parts := strings.Split(string(p.response), "\x00") // authorization identity, user, password; RFC 4616
	if len(parts) != 3 {
		return l, errors.New("initial response of PLAIN is not of three parts")
	}
	l.User, l.Password = parts[1], parts[2]
	return l, nil
}

func (c *Conn) writeSASL(p performative) {
	b, err := appendFrame(nil, frame{kind: frameTypeSASL, body: p})
	if err != nil {
		panic(err) // all fields are ours
	}
	c.writeBytes(b)
}

func (c *Conn) writeBytes(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, b...)
	signal(c.write)
}
