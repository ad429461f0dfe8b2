package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"websocketbridge/signaler"
	"websocketbridge/test/netfault"
	"websocketbridge/test/testlog"
)

const (
	hubName = "hub.test"
	device  = "pump-7"
	key     = "c2VjcmV0LWtleS1vZi1wdW1wLTc=" // "secret-key-of-pump-7"
)

// serverTLS and roots are a hub's certificate, made once: outside of every bubble.
var serverTLS, roots = func() (*tls.Config, *x509.CertPool) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: hubName}, DNSNames: []string{hubName},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), // bubbles live in 2000
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}}, ClientAuth: tls.RequestClientCert}, pool
}()

// A lab is a source and the network in front of it, in memory.
type lab struct {
	t      *testing.T
	ln     *netfault.Listener
	cfg    Config
	src    *Source
	log    testlog.Buffer
	reset  atomic.Bool  // the network: reads fail as if by a reset
	dialed atomic.Int64 // connections

	handle func(signaler.Delivery) *signaler.Refusal // nil: takes everything
	seen   chan signaler.Delivery

	cancel context.CancelFunc
	ended  chan struct{}
	err    error // Run's, when ended is closed
	open   []*conn
}

// newLab makes a lab whose source does not run yet.
func newLab(t *testing.T, change func(*Config)) *lab {
	t.Helper()
	l := &lab{t: t, ln: netfault.NewListener(), seen: make(chan signaler.Delivery, 1000)}
	l.cfg = Config{
		HostName: hubName, DeviceID: device, Key: key, TLS: &tls.Config{RootCAs: roots}, Proxy: netfault.NoProxy,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != hubName+":8883" {
				t.Errorf("dialled %s", addr)
			}
			l.dialed.Add(1)
			c, err := l.ln.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &resettable{c, &l.reset}, nil
		},
		Logger: slog.New(slog.NewTextHandler(&l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&l.cfg)
	}
	var err error
	if l.src, err = New(l.cfg); err != nil {
		t.Fatal(err)
	}
	return l
}

// run starts the source.
func (l *lab) run() *lab {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.ended = cancel, make(chan struct{})
	l.t.Cleanup(func() { // of a test that failed: a bubble wants everything to have ended
		cancel()
		l.ln.Close()
		for _, c := range l.open {
			c.close()
		}
		<-l.ended
	})
	go func() {
		defer close(l.ended)
		l.err = l.src.Run(ctx, func(_ context.Context, d signaler.Delivery) *signaler.Refusal {
			l.seen <- d
			if l.handle != nil {
				return l.handle(d)
			}
			return nil
		})
	}()
	return l
}

// stop ends everything. It must be called at the end of a bubble.
func (l *lab) stop() {
	l.t.Helper()
	l.cancel()
	<-l.ended
	if l.err != nil {
		l.t.Errorf("Run: %v", l.err)
	}
	l.tidy()
}

func (l *lab) tidy() {
	l.t.Helper()
	l.ln.Close()
	for _, c := range l.open {
		c.close()
	}
	text := l.log.String()
	for _, secret := range []string{key, "SharedAccessSignature", "sig=", "PAYLOAD"} {
		if strings.Contains(text, secret) {
			l.t.Errorf("%s is in the log", secret)
		}
	}
	if l.t.Failed() {
		l.t.Logf("the log:\n%s", text)
	}
}

// A conn is the hub's end of one connection.
type conn struct {
	l       *lab
	raw     net.Conn
	tls     *tls.Conn
	connect *packets.ConnectPacket
	got     chan packets.ControlPacket // all but CONNECT and pings; closed at the end
	pings   atomic.Int64
	silent  atomic.Bool // pings are not answered
	deaf    atomic.Bool // nothing more is read
	closed  chan struct{}

	wmu chan struct{} // held during a write; a bubble's clock stands still while a sync.Mutex is waited for
}

// accept waits for a connection and its CONNECT, which it does not answer.
func (l *lab) accept() *conn {
	l.t.Helper()
	raw, err := l.ln.Accept()
	if err != nil {
		l.t.Fatal(err)
	}
	c := &conn{l: l, raw: raw, tls: tls.Server(raw, serverTLS), got: make(chan packets.ControlPacket, 1000), closed: make(chan struct{}), wmu: make(chan struct{}, 1)}
	l.open = append(l.open, c)
	p, err := packets.ReadPacket(c.tls)
	if err != nil {
		l.t.Fatalf("CONNECT: %v", err)
	}
	c.connect = p.(*packets.ConnectPacket)
	go c.read()
	return c
}

func (c *conn) read() {
	defer close(c.got)
	for {
		if c.deaf.Load() {
			<-c.closed
		}
		p, err := packets.ReadPacket(c.tls)
		if err != nil {
			return
		}
		if _, ok := p.(*packets.PingreqPacket); ok {
			c.pings.Add(1)
			if !c.silent.Load() {
				c.send(packets.NewControlPacket(packets.Pingresp))
			}
			continue
		}
		c.got <- p
	}
}

// send writes a packet; the connection may have ended.
func (c *conn) send(p packets.ControlPacket) {
	c.wmu <- struct{}{}
	p.Write(c.tls)
	<-c.wmu
}

func (c *conn) sendBytes(b ...byte) {
	c.wmu <- struct{}{}
	c.tls.Write(b)
	<-c.wmu
}

// next is the next packet, or nil at the end.
func (c *conn) next() packets.ControlPacket { return <-c.got }

func (c *conn) connack(code byte) {
	p := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	p.ReturnCode = code
	c.send(p)
}

// subscribed reads n SUBSCRIBEs and returns the topics.
func (c *conn) subscribed(n int, code byte) (topics []string) {
	c.l.t.Helper()
	for range n {
		s, ok := c.next().(*packets.SubscribePacket)
		if !ok {
			c.l.t.Fatal("no SUBSCRIBE came")
		}
		topics = append(topics, fmt.Sprint(s.Topics[0], " ", s.Qoss[0]))
		a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		a.MessageID, a.ReturnCodes = s.MessageID, []byte{min(s.Qoss[0], 1)}
		if code != 0 {
			a.ReturnCodes = []byte{code}
		}
		c.send(a)
	}
	return topics
}

// welcome takes the connection and both subscriptions of a device.
func (l *lab) welcome() *conn {
	l.t.Helper()
	c := l.accept()
	c.connack(0)
	c.subscribed(len(l.cfg.filters()), 0)
	return c
}

func (c *conn) publish(topic string, qos byte, id uint16, payload string) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Qos, p.MessageID, p.Payload = topic, qos, id, []byte(payload)
	c.send(p)
}

const ours = "devices/" + device + "/messages/devicebound/%24.mid=1&bridge-signal=v1&%24.to=%2Fdevices%2Fpump-7"

func (c *conn) call(rid, payload string) {
	c.publish("$iothub/methods/POST/Bridge/?$rid="+rid, 0, 0, payload)
}

// answer is the next packet, which is a method's answer, as "status rid body".
func (c *conn) answer() string {
	c.l.t.Helper()
	p, ok := c.next().(*packets.PublishPacket)
	if !ok {
		c.l.t.Fatal("no answer came")
	}
	var status int
	var rid string
	fmt.Sscanf(strings.ReplaceAll(p.TopicName, "/", " "), "$iothub methods res %d ?$rid=%s", &status, &rid)
	if p.Qos != 0 {
		c.l.t.Errorf("an answer at QoS %d", p.Qos)
	}
	return fmt.Sprint(status, " ", rid, " ", string(p.Payload))
}

// unsubscribed answers n UNSUBSCRIBEs, if they come next.
func (c *conn) unsubscribed(n int) {
	c.l.t.Helper()
	for range n {
		u, ok := c.next().(*packets.UnsubscribePacket)
		if !ok {
			c.l.t.Fatal("no UNSUBSCRIBE came")
		}
		c.unsuback(u)
	}
}

func (c *conn) unsuback(u *packets.UnsubscribePacket) {
	a := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	a.MessageID = u.MessageID
	c.send(a)
}

// close is how a hub ends a connection: without a word of MQTT.
func (c *conn) close() {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	c.raw.Close()
	for range c.got { // until read has ended
	}
}

// lost waits until the other end has closed, and says whether with a DISCONNECT.
func (c *conn) lost() (polite bool) {
	for p := range c.got {
		_, polite = p.(*packets.DisconnectPacket)
	}
	return polite
}

// resettable is a connection that a flag resets.
type resettable struct {
	net.Conn
	reset *atomic.Bool
}

func (r *resettable) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err != nil && r.reset.Load() {
		return n, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return n, err
}

func (l *lab) logged(text string) int { return strings.Count(l.log.String(), text) }

// wantLog wants text in the log n times.
func (l *lab) wantLog(n int, text string) {
	l.t.Helper()
	if got := l.logged(text); got != n {
		l.t.Errorf("%q is in the log %d times, want %d", text, got, n)
	}
}
