package cluster_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"websocketbridge/relay/cluster"
	"websocketbridge/relay/token"
)

// Messages of a proof, in their order.
const (
	hello = iota
	challenge
	answer
)

var messageSizes = [...]int{cluster.HelloSize, cluster.ChallengeSize, cluster.AnswerSize}

// nonce is not random, so that a test can be run again.
func nonce(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// A meeting is two nodes proving themselves with a man in the middle.
type meeting struct {
	dials, owns         cluster.Keys
	dialNonce, ownNonce []byte
	// change is what the man makes of a message, and whether he hangs up then.
	change func(message int, b []byte) ([]byte, bool)
}

// run returns what each end thinks of the other.
func (m meeting) run() (dialErr, ownErr error) {
	dialler, left := net.Pipe()
	right, owner := net.Pipe()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer dialler.Close()
		var said []byte
		if said, dialErr = cluster.Prove(dialler, m.dials, m.dialNonce); dialErr == nil {
			dialler.Write(said)
		}
	})
	wg.Go(func() {
		defer owner.Close()
		ownErr = cluster.Challenge(owner, m.owns, m.ownNonce)
	})
	defer left.Close()
	defer right.Close()
	for message, size := range messageSizes {
		from, to := left, right
		if message == challenge {
			from, to = right, left
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(from, b); err != nil {
			break
		}
		hangUp := false
		if m.change != nil {
			b, hangUp = m.change(message, b)
		}
		if _, err := to.Write(b); err != nil || hangUp {
			break
		}
	}
	left.Close()
	right.Close()
	wg.Wait()
	return dialErr, ownErr
}

func meet(t testing.TB, change func(int, []byte) ([]byte, bool)) meeting {
	return meeting{dials: ring(t, 1), owns: ring(t, 1), dialNonce: nonce('d'), ownNonce: nonce('o'), change: change}
}

func TestProofKeys(t *testing.T) {
	for _, c := range []struct {
		dials, owns []byte
		good        bool
	}{
		{[]byte{1}, []byte{1}, true},
		{[]byte{1}, []byte{1, 2}, true}, // a rotation, step by step
		{[]byte{1, 2}, []byte{1}, true},
		{[]byte{1, 2}, []byte{1, 2}, true},
		{[]byte{1, 2}, []byte{2, 1}, true},
		{[]byte{2, 1}, []byte{1, 2}, true},
		{[]byte{2}, []byte{2, 1}, true},
		{[]byte{2, 1}, []byte{2}, true},
		{[]byte{1}, []byte{2}, false},
		{[]byte{1}, []byte{2, 1}, false}, // a step was left out: the first key of each has to be known to the other
		{[]byte{2, 1}, []byte{1}, false},
		{[]byte{1, 3}, []byte{2, 3}, false},
	} {
		m := meet(t, nil)
		m.dials, m.owns = ring(t, c.dials...), ring(t, c.owns...)
		dialErr, ownErr := m.run()
		if c.good && (dialErr != nil || ownErr != nil) || !c.good && !errors.Is(ownErr, cluster.ErrProof) {
			t.Errorf("%d and %d: %v, %v", c.dials, c.owns, dialErr, ownErr)
		}
		for _, err := range []error{dialErr, ownErr} {
			if err != nil && !errors.Is(err, cluster.ErrProof) {
				t.Errorf("%d and %d: %v", c.dials, c.owns, err)
			}
		}
	}
}

// spoil runs a meeting in which one message is not what was sent. Nobody may end up
// with an owner that believes it, nor with a dialler that sends its request unless it
// was the last message.
func spoil(t *testing.T, what string, message int, change func([]byte) ([]byte, bool)) {
	t.Helper()
	dialErr, ownErr := meet(t, func(i int, b []byte) ([]byte, bool) {
		if i == message {
			return change(bytes.Clone(b))
		}
		return b, false
	}).run()
	if message != answer && !errors.Is(dialErr, cluster.ErrProof) {
		t.Errorf("%s: the dialling node: %v", what, dialErr)
	}
	if ownErr == nil || message == answer && !errors.Is(ownErr, cluster.ErrProof) {
		t.Errorf("%s: the owner: %v", what, ownErr)
	}
}

func TestProofSpoiled(t *testing.T) {
	for message, size := range messageSizes {
		for bit := range 8 * size {
			spoil(t, fmt.Sprintf("message %d with bit %d flipped", message, bit), message, func(b []byte) ([]byte, bool) {
				b[bit/8] ^= 1 << (bit % 8)
				return b, false
			})
		}
		for n := range size {
			spoil(t, fmt.Sprintf("message %d cut after %d bytes", message, n), message, func(b []byte) ([]byte, bool) { return b[:n], true })
		}
	}
}

// What a node says itself proves nothing to it.
func TestProofReflected(t *testing.T) {
	var said [3][]byte
	record := func(i int, b []byte) ([]byte, bool) { said[i] = bytes.Clone(b); return b, false }
	if dialErr, ownErr := meet(t, record).run(); dialErr != nil || ownErr != nil {
		t.Fatal(dialErr, ownErr)
	}
	spoil(t, "the owner's MAC as the answer", answer, func([]byte) ([]byte, bool) { return said[challenge][32:], false })
	spoil(t, "hello as the challenge", challenge, func([]byte) ([]byte, bool) {
		return append(bytes.Clone(said[hello]), make([]byte, cluster.ChallengeSize-cluster.HelloSize)...), false
	})
	spoil(t, "the answer as the challenge", challenge, func([]byte) ([]byte, bool) {
		return append(nonce('o'), said[answer]...), false
	})
	// Nor what it said once.
	m := meet(t, func(i int, b []byte) ([]byte, bool) { return said[i], false })
	m.ownNonce = nonce('O')
	if _, ownErr := m.run(); !errors.Is(ownErr, cluster.ErrProof) {
		t.Errorf("the owner takes an old answer: %v", ownErr)
	}
	m = meet(t, func(i int, b []byte) ([]byte, bool) { return said[i], false })
	m.dialNonce = nonce('D')
	if dialErr, _ := m.run(); !errors.Is(dialErr, cluster.ErrProof) {
		t.Errorf("the dialling node takes an old challenge: %v", dialErr)
	}
}

// Nodes of two versions have to agree.
func TestProofGolden(t *testing.T) {
	var got strings.Builder
	m := meet(t, func(i int, b []byte) ([]byte, bool) {
		fmt.Fprintln(&got, hex.EncodeToString(b))
		return b, false
	})
	if dialErr, ownErr := m.run(); dialErr != nil || ownErr != nil {
		t.Fatal(dialErr, ownErr)
	}
	want, err := os.ReadFile("testdata/proof.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("hello, challenge and answer are\n%swant\n%s", got.String(), want)
	}
}

// scripted is the connection of somebody whose every word is known.
type scripted struct {
	net.Conn
	io.Reader
	out bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return s.out.Write(p) }

// FuzzChallenge: whatever a stranger says, only the one good answer passes, and what is
// behind it is left to HTTP.
func FuzzChallenge(f *testing.F) {
	keys := ring(f, 1)
	good := append([]byte(cluster.Magic), nonce('d')...)
	good = append(good, keys.MAC(cluster.PurposePeer, append(bytes.Clone(good), nonce('o')...))...)
	f.Add(good)
	f.Add(append(bytes.Clone(good), "GET / HTTP/1.1\r\n"...))
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Add([]byte("GET /bridge/accept HTTP/1.1\r\nHost: relay\r\nUser-Agent: somebody\r\n\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		in := bytes.NewReader(said)
		s := &scripted{Reader: in}
		err := cluster.Challenge(s, keys, nonce('o'))
		if len(said) == 0 != (err == io.EOF) {
			t.Errorf("%d bytes: %v", len(said), err)
		}
		if len(said) < cluster.HelloSize || string(said[:len(cluster.Magic)]) != cluster.Magic {
			if err == nil || s.out.Len() > 0 {
				t.Fatalf("a stranger is answered %d bytes, %v", s.out.Len(), err)
			}
			return
		}
		saidHello := said[:cluster.HelloSize]
		want := append(bytes.Clone(saidHello), keys.MAC(cluster.PurposePeer, append(bytes.Clone(saidHello), nonce('o')...))...)
		if passes := bytes.HasPrefix(said, want); passes != (err == nil) {
			t.Fatalf("should pass: %t, and: %v", passes, err)
		}
		if err == nil && in.Len() != len(said)-len(want) {
			t.Fatalf("%d bytes are left of %d", in.Len(), len(said)-len(want))
		}
		if err != nil && !errors.Is(err, cluster.ErrProof) {
			t.Fatal(err)
		}
	})
}

var _ cluster.Keys = (*token.Ring)(nil)
