//go:build netns && linux

package netns_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// targetNames are the targets of each device. A bridge serves the one it was asked
// for only, so that bridges to one device that were joined wrongly show.
var targetNames = []string{"a", "b", "c", "d", "e", "f"}

// serveTarget serves a target until the test ends. It says who it is. Then it
// answers each line: "bulk BYTES SECONDS SEED" with as many bytes, evenly, and the
// end; others with themselves.
func serveTarget(t *testing.T, sock, who string) {
	t.Helper()
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns = map[net.Conn]struct{}{}
		over  bool
	)
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("target %s: %v", who, err)
				}
				return
			}
			mu.Lock()
			if over {
				c.Close()
			} else {
				conns[c] = struct{}{}
				wg.Go(func() {
					answerLines(c, who)
					c.Close()
					mu.Lock()
					delete(conns, c)
					mu.Unlock()
				})
			}
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		over = true
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

func answerLines(c net.Conn, who string) {
	if _, err := fmt.Fprintf(c, "this is %s\n", who); err != nil {
		return
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		var size int64
		var seconds float64
		var seed uint64
		if n, _ := fmt.Sscanf(lines.Text(), "bulk %d %g %d", &size, &seconds, &seed); n == 3 {
			sendBulk(c, size, seconds, seed)
			return
		}
		if _, err := fmt.Fprintf(c, "echo %s\n", lines.Text()); err != nil {
			return
		}
	}
}

// sendBulk spreads size bytes over some seconds.
func sendBulk(c net.Conn, size int64, seconds float64, seed uint64) {
	const parts = 100
	r := io.LimitReader(bulk(seed), size)
	tick := time.NewTicker(time.Duration(seconds * float64(time.Second) / parts))
	defer tick.Stop()
	for range parts {
		if _, err := io.CopyN(c, r, (size+parts-1)/parts); err != nil {
			return // all of it, or nobody reads
		}
		<-tick.C
	}
}

func bulk(seed uint64) io.Reader {
	return rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed)))
}

// bulkHash is what a transfer has to have.
func bulkHash(size int64, seed uint64) string {
	h := sha256.New()
	io.CopyN(h, bulk(seed), size)
	return hex.EncodeToString(h.Sum(nil))
}

// fetchBulk takes a transfer from a target and checks who it is and each byte. It
// calls begun when the first bytes have come, or nothing will.
func fetchBulk(c net.Conn, who string, size int64, took time.Duration, seed uint64, begun func()) error {
	c.SetDeadline(time.Now().Add(took + patience))
	_, err := fmt.Fprintf(c, "bulk %d %g %d\n", size, took.Seconds(), seed)
	r := bufio.NewReader(c)
	if err == nil {
		err = greets(r, who)
	}
	if err == nil {
		_, err = r.Peek(1)
	}
	begun()
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return fmt.Errorf("after %d bytes of %d: %w", n, size, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != size || got != bulkHash(size, seed) {
		return fmt.Errorf("%d bytes of %d came, with hash %s", n, size, got)
	}
	return nil
}

// greets reads the first line of a target.
func greets(r *bufio.Reader, who string) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if got := strings.TrimSuffix(line, "\n"); got != "this is "+who {
		return fmt.Errorf("joined wrongly: %q instead of %s", got, who)
	}
	return nil
}
