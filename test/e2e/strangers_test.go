//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process/processtest"
)

// envStrangers makes this program the attack instead of the tests: the relay's address,
// and how many.
const envStrangers = "E2E_STRANGERS"

// niceness of strangers, whose machines would be others: what they need to attack is not
// what the honest ones lose.
const niceness = 10

// comeStrangers returns when the attack is under way. They are a process of their own, as
// they would not share a runtime with who measures.
func comeStrangers(t *testing.T, addr string, a attack) *processtest.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = processtest.CleanEnv(fmt.Sprintf("%s=%s %d %d", envStrangers, addr, a.slow, a.rubbish))
	p := processtest.Start(t, cmd, processtest.Config{Name: "strangers", Patience: patience})
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, p.PID(), niceness); err != nil {
		t.Fatal(err)
	}
	p.Says("under way\n")
	return p
}

// leave ends strangers, and returns how many connections they made, and how many of rubbish
// a second since the attack was under way.
func leave(p *processtest.Process) (made int64, perSecond float64) {
	p.T.Helper()
	p.CloseInput()
	p.Exits(0)
	lines := p.Out.Lines()
	if _, err := fmt.Sscan(lines[len(lines)-1].Text, &made, &perSecond); err != nil {
		p.T.Fatal(err)
	}
	return made, perSecond
}

func init() {
	order := os.Getenv(envStrangers)
	if order == "" {
		return
	}
	if err := beStrangers(order); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beStrangers is the process. It attacks until its input ends.
func beStrangers(order string) error {
	var addr string
	var a attack
	if _, err := fmt.Sscan(order, &addr, &a.slow, &a.rubbish); err != nil {
		return err
	}
	ctx, cease := context.WithCancel(context.Background())
	defer cease()
	var all sync.WaitGroup
	var slow, rubbished atomic.Int64 // connections
	for i := range a.slow {
		all.Go(func() { slowly(ctx, addr, i, &slow) })
	}
	all.Go(func() { rubbish(ctx, addr, a.rubbish, &rubbished) })
	for tick := time.NewTicker(5 * time.Millisecond); slow.Load() < int64(a.slow) || rubbished.Load() < int64(a.rubbish); <-tick.C {
	}
	before, began := rubbished.Load(), time.Now()
	fmt.Println("under way")
	io.Copy(io.Discard, os.Stdin)
	perSecond := float64(rubbished.Load()-before) / time.Since(began).Seconds()
	cease()
	all.Wait()
	fmt.Println(slow.Load()+rubbished.Load(), perSecond)
	return nil
}

// strangerAddr is one of eight addresses that no honest one has.
func strangerAddr(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))} }

// say connects, writes, and reads until the relay ends the connection or hold is over.
func say(ctx context.Context, addr string, i int, text string, hold time.Duration, made *atomic.Int64) {
	d := net.Dialer{LocalAddr: strangerAddr(i)}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(hold))
	io.WriteString(c, text)
	made.Add(1)
	io.Copy(io.Discard, c)
}

const half = "GET /bridge/connect?deviceId=" + device + " HTTP/1.1\r\nHost: relay\r\nX-Api-Key: "

// slowly holds one connection, and makes another when the relay has ended it.
func slowly(ctx context.Context, addr string, i int, made *atomic.Int64) {
	texts := []string{"", "G", half, "\x16\x03\x01\x02", "GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "POST /bridge/reject?bridgeToken=x HTTP/1.1\r\nHost: relay\r\nContent-Length: 100\r\n\r\n{"}
	for ctx.Err() == nil {
		say(ctx, addr, i, texts[i%len(texts)], time.Minute, made)
		select {
		case <-ctx.Done():
		case <-time.After(500*time.Millisecond + rand.N(time.Second)):
		}
	}
}

// rubbish connects so often a second, with what is not good for anything.
func rubbish(ctx context.Context, addr string, perSecond int, made *atomic.Int64) {
	const upgrade = "Host: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	texts := []string{
		"GET /bridge/accept?bridgeToken=" + strings.Repeat("A", 200) + " HTTP/1.1\r\n" + upgrade + "\r\n",
		"GET /bridge/connect?deviceId=" + device + " HTTP/1.1\r\n" + upgrade + "X-Api-Key: wrong\r\n\r\n",
		"GET /bridge/connect?deviceId=" + device + "&upgrade=early HTTP/1.1\r\n" + upgrade + "Authorization: Bearer a.b.c\r\n\r\n",
		"GET /bridge/connectSigned?deviceId=" + device + "&expirationUtc=2030-01-01T00:00:00.0000000Z&principal=ops&signature=AQ HTTP/1.1\r\n" + upgrade + "\r\n",
		"GET /bridge/getSignedUrl?deviceId=" + device + "&expirationUtc=2030-01-01T00:00:00Z HTTP/1.1\r\nHost: relay\r\n\r\n",
		"POST /bridge/reject?bridgeToken=x HTTP/1.1\r\nHost: relay\r\nContent-Length: 2\r\n\r\n{}",
		"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + strings.Repeat("\xa5", 60), // half a TLS hello
		strings.Repeat("\x00\xff\r\n", 500),
		"GET / HTTP/1.1\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 40),
		"GET /" + strings.Repeat("%", 5000) + " HTTP/1.1\r\n\r\n",
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began, n := time.Now(), 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A late tick makes up for it.
		for due := int(time.Since(began).Seconds() * float64(perSecond)); n < due; n++ {
			i := n
			wg.Go(func() { say(ctx, addr, i, texts[i%len(texts)], 2*time.Second, made) })
		}
	}
}
