package hub

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// stream is a connection that only reads.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func TestGuard(t *testing.T) {
	publish := func(payload int) []byte {
		var b bytes.Buffer
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload = "a", make([]byte, payload)
		p.Write(&b)
		return b.Bytes()
	}
	good := slices.Concat([]byte{0x20, 2, 0, 0}, []byte{0x90, 3, 0, 1, 0}, []byte{0xd0, 0}, publish(0), publish(200), publish(20_000), publish(maxPacket-3))
	for _, tt := range []struct {
		name string
		end  []byte
		err  error
	}{
		{"the end", nil, io.EOF},
		{"cut after the type", []byte{0x30}, errCut},
		{"cut in the length", []byte{0x30, 0x80}, errCut},
		{"cut before the rest", []byte{0x30, 5}, errCut},
		{"cut in the rest", []byte{0x30, 5, 0, 1}, errCut},
		{"a length of five bytes", []byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, errPacket},
		{"256 MB", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, errPacket},
		{"one too many", []byte{0x30, 0x81, 0x80, 0x20}, errPacket},
		{"a SUBACK for two", []byte{0x90, 4, 0, 1, 0, 0}, errPacket},
		{"a SUBACK for none", []byte{0x90, 2, 0, 1}, errPacket},
		{"a CONNACK without a code", []byte{0x20, 1, 0}, errPacket},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for how, r := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "with the error": iotest.DataErrReader} {
				g := &guard{Conn: stream{Reader: r(bytes.NewReader(append(slices.Clone(good), tt.end...)))}}
				publishes := 0
				g.publish = func() { publishes++ }
				got, err := io.ReadAll(g)
				if err == nil {
					err = io.EOF
				}
				if !errors.Is(err, tt.err) || !bytes.Equal(got, good) {
					t.Errorf("%s: %d bytes of %d, %v, want %v", how, len(got), len(good), err, tt.err)
				}
				if publishes != 4 {
					t.Errorf("%s: counted %d times PUBLISH", how, publishes)
				}
				if !errors.Is(g.ended(), tt.err) {
					t.Errorf("%s: it remembers %v", how, g.ended())
				}
			}
		})
	}
}

// Whatever comes, nothing but whole packets gets to paho, which can read them all.
func FuzzGuard(f *testing.F) {
	for _, seed := range [][]byte{{}, {0x20, 2, 0, 0}, {0x90, 3, 0, 1, 0x80}, {0xd0, 0, 0x30, 3, 0, 1, 'a'}, {0x32, 5, 0, 1, 'a', 0, 1}, {0x30, 0xff, 0xff, 0xff, 0x7f}, {0x30, 0x80, 0x80}, {0, 0}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &guard{Conn: stream{Reader: bytes.NewReader(b)}, publish: func() {}}
		got, _ := io.ReadAll(g)
		if !bytes.HasPrefix(b, got) {
			t.Errorf("%x became %x", b, got)
		}
		r := bytes.NewReader(got)
		for r.Len() > 0 {
			p, err := packets.ReadPacket(r)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("half a packet in %x", got)
			}
			if err != nil {
				return // paho gives the connection up
			}
			if s, ok := p.(*packets.SubackPacket); ok && len(s.ReturnCodes) != 1 {
				t.Errorf("a SUBACK of %x", s.ReturnCodes)
			}
		}
	})
}

// A connection that takes nothing does not hold a writer for ever, and an earlier
// deadline counts.
func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		p := &patient{Conn: a}
		for _, tt := range []struct{ deadline, want time.Duration }{{0, writeTimeout}, {time.Second, time.Second}, {time.Hour, writeTimeout}, {0, writeTimeout}} {
			until := time.Time{}
			if tt.deadline > 0 {
				until = time.Now().Add(tt.deadline)
			}
			p.SetDeadline(until)
			start := time.Now()
			_, err := p.Write([]byte("x"))
			if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != tt.want {
				t.Errorf("deadline %v: %v after %v", tt.deadline, err, took)
			}
		}
		go io.Copy(io.Discard, b)
		p.SetDeadline(time.Time{})
		time.Sleep(time.Hour) // between writes there is none
		if _, err := p.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	})
}
