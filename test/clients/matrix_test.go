package clients

import (
	"bytes"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// pair is who sits on which side.
type pair struct{ requester, device library }

// testMatrix sends everything RFC 6455 allows through bridges between two
// libraries, in both directions, with both kinds of upgrade.
func testMatrix(t *testing.T, l lab, p pair) {
	for _, early := range []bool{false, true} {
		name := map[bool]string{false: "held", true: "early"}[early]
		t.Run(name, func(t *testing.T) {
			id := "peer-" + name
			d := l.listen(t, p.device, id)
			t.Run("messages", func(t *testing.T) {
				requester, dev := l.bridge(t, p.requester, d, id, early)
				for _, c := range messages() {
					t.Run("to device/"+c.name, func(t *testing.T) { c.run(t, requester, dev) })
					t.Run("to requester/"+c.name, func(t *testing.T) { c.run(t, dev, requester) })
				}
				t.Run("both ways at once", func(t *testing.T) { bothWays(t, requester, dev) })
			})
			for _, c := range closes {
				t.Run("closed by requester/"+c.name(), func(t *testing.T) {
					requester, dev := l.bridge(t, p.requester, d, id, early)
					c.run(t, requester, dev)
				})
				t.Run("closed by device/"+c.name(), func(t *testing.T) {
					requester, dev := l.bridge(t, p.requester, d, id, early)
					c.run(t, dev, requester)
				})
			}
			t.Run("requester vanishes", func(t *testing.T) {
				requester, dev := l.bridge(t, p.requester, d, id, early)
				vanish(t, requester, dev, "requester")
			})
			t.Run("device vanishes", func(t *testing.T) {
				requester, dev := l.bridge(t, p.requester, d, id, early)
				vanish(t, dev, requester, "device")
			})
			t.Run("never FIN", func(t *testing.T) {
				// Only a library that shows parts of a message can be the receiver.
				if p.device == (coder{}) {
					requester, dev := l.bridge(t, p.requester, d, id, early)
					t.Run("to device", func(t *testing.T) { neverFIN(t, requester, dev) })
				}
				if p.requester == (coder{}) {
					requester, dev := l.bridge(t, p.requester, d, id, early)
					t.Run("to requester", func(t *testing.T) { neverFIN(t, dev, requester) })
				}
			})
		})
	}
	t.Run("early data", func(t *testing.T) { earlyData(t, l, p) })
	t.Run("subprotocol", func(t *testing.T) { subprotocol(t, l, p) })
}

// messageCase is some messages, each a list of fragments.
type messageCase struct {
	name string
	text bool
	msgs [][][]byte
}

func messages() []messageCase {
	whole := func(name string, text bool, msgs ...[]byte) messageCase {
		c := messageCase{name: name, text: text}
		for _, m := range msgs {
			c.msgs = append(c.msgs, [][]byte{m})
		}
		return c
	}
	words := []byte(strings.Repeat("grüße, 世界 𝄞 – ", 400))
	var ones [][]byte
	for _, b := range random(300) {
		ones = append(ones, []byte{b})
	}
	var sizes [][]byte
	for _, n := range []int{1, 125, 126, 127, 65535, 65536, 65537, 70_000} { // around the forms of a length, and the relay's buffer
		sizes = append(sizes, random(n))
	}
	return []messageCase{
		whole("text", true, words),
		whole("binary", false, random(5000)),
		whole("empty text", true, nil, []byte("x"), nil),
		whole("empty binary", false, nil, nil, []byte{0}),
		whole("1-byte messages", false, ones...),
		whole("sizes", false, sizes...),
		whole("1 MiB binary", false, random(1<<20)),
		whole("1 MiB text", true, bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)),
		// Cuts in the middle of runes: a fragment alone is no valid UTF-8.
		{"fragmented text", true, [][][]byte{cut(words, 7), cut(words, 1001)}},
		{"fragmented binary", false, [][][]byte{cut(random(100_000), 999)}},
		{"1-byte frames", false, [][][]byte{ones, ones[:2]}},
		{"empty fragments", false, [][][]byte{{nil, random(10), nil, nil, random(20), nil}, {nil, nil, nil}}},
		{"1 MiB in frames of 64 KiB", false, [][][]byte{cut(random(1<<20), 64<<10)}},
	}
}

func (c messageCase) run(t *testing.T, from, to peer) {
	sent := make(chan error, 1)
	go func() { sent <- c.send(from) }()
	for i, parts := range c.msgs {
		want := message{c.text, bytes.Join(parts, nil)}
		got, err := to.box().next()
		if err != nil {
			t.Fatalf("message %d, %v: %v", i, want, err)
		}
		if got.text != want.text || !bytes.Equal(got.data, want.data) {
			t.Fatalf("message %d: got %v, want %v with the same bytes", i, got, want)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func (c messageCase) send(from peer) error {
	for _, parts := range c.msgs {
		if len(parts) == 1 {
			if err := from.send(message{c.text, parts[0]}); err != nil {
				return err
			}
			continue
		}
		for i, part := range parts {
			if err := from.fragment(c.text, part, i == len(parts)-1); err != nil {
				return err
			}
			if i == len(parts)/2 { // a control frame in the middle of a message
				if err := from.ping(); err != nil {
					return fmt.Errorf("ping: %w", err)
				}
			}
		}
	}
	return nil
}

func bothWays(t *testing.T, a, b peer) {
	var wg sync.WaitGroup
	for _, dir := range []struct{ from, to peer }{{a, b}, {b, a}} {
		c := messageCase{}
		for range 16 {
			c.msgs = append(c.msgs, [][]byte{random(200_000 + rand.IntN(200_000))})
		}
		wg.Go(func() { c.run(t, dir.from, dir.to) })
	}
	wg.Wait()
}

// neverFIN sends one message without an end, as websocketbridge does.
func neverFIN(t *testing.T, from, to peer) {
	var all []byte
	for i := range 20 {
		part := random(1 + i*1777)
		all = append(all, part...)
		if err := from.fragment(false, part, false); err != nil {
			t.Fatal(err)
		}
		if err := from.ping(); err != nil { // also makes the library send what it holds back
			t.Fatal(err)
		}
		got, err := to.box().prefix(len(all))
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(all), err)
		}
		if !bytes.Equal(got, all) {
			t.Fatalf("the first %d bytes differ", len(all))
		}
	}
	if err := to.send(message{true, []byte("the other direction lives")}); err != nil {
		t.Fatal(err)
	}
	if m, err := from.box().next(); err != nil || string(m.data) != "the other direction lives" {
		t.Fatalf("got %v, %v", m, err)
	}
	closeCase{4002, "in the middle"}.run(t, from, to)
}

// closeCase is a close frame; code 0: an empty one.
type closeCase struct {
	code   int
	reason string
}

var closes = []closeCase{
	{1000, "bye"},
	{1001, "page left"},
	{3000, ""},
	{4001, "grüße € 𝄞"},
	{4999, strings.Repeat("r", 123)},
	{0, ""},
}

func (c closeCase) name() string {
	if c.code == 0 {
		return "none"
	}
	return fmt.Sprint(c.code)
}

func (c closeCase) run(t *testing.T, from, to peer) {
	if err := from.close(c.code, c.reason); err != nil {
		t.Errorf("close: %v", err)
	}
	code := c.code
	if code == 0 {
		code = 1005 // RFC 6455 section 7.1.5
	}
	wantEnd(t, "the other side", to, code, func(reason string) bool { return reason == c.reason })
	// Libraries answer with the same code; not all repeat the reason.
	wantEnd(t, "the closing side", from, code, func(string) bool { return true })
}

func wantEnd(t *testing.T, who string, p peer, code int, reason func(string) bool) {
	t.Helper()
	m, err := p.box().next()
	var end *ended
	if !errors.As(err, &end) {
		t.Errorf("%s got %v, %v; want its end with code %d", who, m, err, code)
		return
	}
	if end.code != code || !reason(end.reason) {
		t.Errorf("%s: %v; want code %d", who, end, code)
	}
}

func vanish(t *testing.T, from, to peer, side string) {
	if err := from.send(message{true, []byte("last words")}); err != nil {
		t.Fatal(err)
	}
	if m, err := to.box().next(); err != nil || string(m.data) != "last words" {
		t.Fatalf("got %v, %v", m, err)
	}
	from.abort()
	wantEnd(t, "the other side", to, 1001, func(reason string) bool {
		return strings.HasPrefix(reason, "peer_lost: ") && strings.Contains(reason, side)
	})
}

// earlyData is sent before the device is even there.
func earlyData(t *testing.T, l lab, p pair) {
	d := l.listen(t, p.device, "peer-early-data")
	requester, err := l.connect(p.requester, l.connectURL("peer-early-data", true, ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(requester.abort)
	for _, s := range []string{"first", "", "third"} {
		if err := requester.send(message{true, []byte(s)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := requester.ping(); err != nil {
		t.Fatalf("a ping before the device is there: %v", err)
	}
	s, err := d.signal("")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.lib.dial(s.AcceptURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.abort)
	for _, want := range []string{"first", "", "third"} {
		if m, err := dev.box().next(); err != nil || !m.text || string(m.data) != want {
			t.Fatalf("got %v %q, %v; want %q", m, m.data, err, want)
		}
	}
	closeCase{1000, "bye"}.run(t, dev, requester)
}

func subprotocol(t *testing.T, l lab, p pair) {
	d := l.listen(t, p.device, "peer-subprotocol")
	done := l.start(p.requester, l.connectURL("peer-subprotocol", false, ""), "a.example", "b.example", "c.example")
	s, err := d.signal("")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.lib.dial(s.AcceptURL, nil, "x.example", "b.example")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.abort)
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	t.Cleanup(got.peer.abort)
	if r, d := got.peer.protocol(), dev.protocol(); r != "b.example" || d != "b.example" {
		t.Errorf("the requester has subprotocol %q, the device %q, want b.example", r, d)
	}
}

// testFailures needs a lab whose dial-back time is short.
func testFailures(t *testing.T, l lab, p pair) {
	const no = `{"code":"busy","message":"the pump is being \"serviced\""}`
	for _, c := range []struct {
		name          string
		device        func(*testing.T, *device)
		status, close int
		code          string
		words         string // of the device, in the detail
	}{
		{"refuses by the reject URL", func(t *testing.T, d *device) {
			s, err := d.signal("")
			if err != nil {
				t.Fatal(err)
			}
			if status, err := d.lib.post(s.RejectURL, []byte(no)); status != 204 {
				t.Errorf("the reject was answered %d, %v", status, err)
			}
			if status, _ := d.lib.post(s.RejectURL, []byte(no)); status != 410 {
				t.Errorf("a second reject was answered %d, want 410", status)
			}
			_, err = d.lib.dial(s.AcceptURL, nil)
			if r := (*refused)(nil); !errors.As(err, &r) || r.status != 410 {
				t.Errorf("a dial after the reject: %v, want a 410", err)
			}
		}, 409, 4409, "device_refused", `the pump is being "serviced"`},
		{"refuses by its hub", func(t *testing.T, d *device) {
			if _, err := d.signal(no); err != nil {
				t.Fatal(err)
			}
		}, 409, 4409, "device_refused", `the pump is being "serviced"`},
		{"never dials", func(t *testing.T, d *device) {
			if _, err := d.signal(""); err != nil {
				t.Fatal(err)
			}
		}, 504, 4504, "dial_back_timeout", ""},
		{"is not there", nil, 404, 4404, "device_not_found", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, early := range []bool{false, true} {
				t.Run(map[bool]string{false: "held", true: "early"}[early], func(t *testing.T) {
					id := strings.ReplaceAll(c.name, " ", "-")
					var d *device
					if c.device != nil {
						d = l.listen(t, p.device, id)
					}
					done := l.start(p.requester, l.connectURL(id, early, ""))
					if d != nil {
						c.device(t, d)
					}
					got := <-done
					if early {
						if got.err != nil {
							t.Fatal(got.err)
						}
						t.Cleanup(got.peer.abort)
						wantEnd(t, "the requester", got.peer, c.close, func(reason string) bool {
							return strings.HasPrefix(reason, c.code+": ") && strings.Contains(reason, c.words)
						})
						return
					}
					r := (*refused)(nil)
					if !errors.As(got.err, &r) {
						t.Fatalf("got %v, want a refusal", got.err)
					}
					var problem struct{ Code, Detail string }
					if err := json.Unmarshal(r.body, &problem); err != nil {
						t.Fatalf("%v: %q", err, r.body)
					}
					if r.status != c.status || problem.Code != c.code || !strings.Contains(problem.Detail, c.words) {
						t.Errorf("got %v, want %d %s %q", r, c.status, c.code, c.words)
					}
					if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
						t.Errorf("the content type is %q", ct)
					}
				})
			}
		})
	}
}

// random is not the same in two runs; no bytes are special here.
func random(n int) []byte {
	b := make([]byte, n)
	crand.Read(b) // never fails
	return b
}

func cut(b []byte, size int) (parts [][]byte) {
	for ; len(b) > size; b = b[size:] {
		parts = append(parts, b[:size])
	}
	return append(parts, b)
}
