package cluster

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
)

// ErrProof: the other end does not prove to be a node of this relay.
var ErrProof = errors.New("the other end does not prove to be a node of this relay (do the nodes have the same token keys, and the same kind of TLS?)")

const (
	magic        = "wsb-node\x01" // and the version
	nonceSize    = 32
	macSize      = 36
	purposeOwner = "node owner"
	purposePeer  = "node peer"
	// exporter and bindingSize are those of RFC 9266 section 4.
	exporter    = "EXPORTER-Channel-Binding"
	bindingSize = 32
)

// prove is the dialling node's side of the proof, with a nonce of its own. It returns
// the answer, which is to be sent in front of the request: one write, one packet.
func prove(c net.Conn, keys Keys, mine []byte) (answer []byte, err error) {
	binding, err := bindingOf(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	hello := append([]byte(magic), mine...)
	if _, err := c.Write(hello); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	challenge := make([]byte, nonceSize+macSize)
	if _, err := io.ReadFull(c, challenge); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it hung up")
		}
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	said := transcript(hello, challenge[:nonceSize], binding)
	if err := keys.CheckMAC(purposeOwner, said, challenge[nonceSize:]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return keys.MAC(purposePeer, said), nil
}

// challenge is the owner's side, with a nonce of its own. It reads exactly the proof and
// nothing behind it. The error is io.EOF if the other end has said nothing.
func challenge(c net.Conn, keys Keys, mine []byte) error {
	binding, err := bindingOf(c)
	if err != nil {
		return err
	}
	hello := make([]byte, len(magic)+nonceSize)
	if _, err := io.ReadFull(c, hello); err != nil {
		return err
	}
	if !bytes.HasPrefix(hello, []byte(magic)) {
		return fmt.Errorf("%w: it does not speak the nodes' protocol, or another version of it", ErrProof)
	}
	said := transcript(hello, mine, binding)
	if _, err := c.Write(append(bytes.Clone(mine), keys.MAC(purposeOwner, said)...)); err != nil {
		return err
	}
	answer := make([]byte, macSize)
	if _, err := io.ReadFull(c, answer); err != nil {
		if errors.Is(err, io.EOF) { // as a node does whose keys are others
			err = errors.New("it hung up when it was to prove itself")
		}
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := keys.CheckMAC(purposePeer, said, answer); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return nil
}

func transcript(hello, nonce, binding []byte) []byte {
	return bytes.Join([][]byte{hello, nonce, binding}, nil)
}

func nonce() []byte {
	b := make([]byte, nonceSize)
	rand.Read(b) // never fails: it ends the program instead (Go 1.24)
	return b
}

// bindingOf is what only the two ends of a TLS connection know, or nothing without TLS.
// It ends the handshake first.
func bindingOf(c net.Conn) ([]byte, error) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return nil, nil
	}
	if err := t.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	state := t.ConnectionState()
	b, err := state.ExportKeyingMaterial(exporter, nil, bindingSize)
	if err != nil {
		return nil, fmt.Errorf("bind the proof to TLS: %w", err)
	}
	return b, nil
}
