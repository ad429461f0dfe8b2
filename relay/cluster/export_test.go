package cluster

import (
	"context"
	"net"
	"slices"
)

// Lengths of what two nodes say before HTTP.
const (
	HelloSize     = len(magic) + nonceSize
	ChallengeSize = nonceSize + macSize
	AnswerSize    = macSize
	Magic         = magic
	PurposePeer   = purposePeer

	ProofTimeout  = proofTimeout
	AnswerTimeout = answerTimeout
	AcceptRetry   = acceptRetry
	MaxProving    = maxProving
	MaxAnswer     = maxAnswer
	MaxAnswerHead = maxAnswerHead
	NameLife      = nameLife
	NameLeast     = nameLeast
)

// Prove and Challenge are the two sides of the proof, with the nonce that the test chose.
func Prove(c net.Conn, keys Keys, nonce []byte) ([]byte, error) { return prove(c, keys, nonce) }
func Challenge(c net.Conn, keys Keys, nonce []byte) error       { return challenge(c, keys, nonce) }

// Check says whether an owner may be dialled.
func (n *Node) Check(ctx context.Context, owner string) error { return n.check(ctx, owner) }

// Canonical is the one way to write an address.
func Canonical(s string) (string, error) {
	a, err := parseAddress(s)
	return a.String(), err
}

// NewAnswer is a 101 that came on c, with head right behind it.
func NewAnswer(c net.Conn, head []byte) *Answer { return &Answer{Status: 101, conn: c, head: head} }

// All is what the list holds.
func (p *Peers) All() []string {
	all := slices.Clone(p.exact)
	for _, r := range p.ranges {
		all = append(all, address{host: r.prefix.String(), port: r.port}.String())
	}
	for _, m := range p.names {
		all = append(all, address{host: m.host, port: m.port}.String())
	}
	return all
}
