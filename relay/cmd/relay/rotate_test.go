package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"websocketbridge/relay/token"
)

// mount is a folder as Kubernetes mounts a secret: a name is a link to ..data/name, and
// ..data is a link to the folder of the moment, which is swapped as a whole.
type mount struct {
	t     *testing.T
	dir   string
	turns int
}

func (m *mount) publish(files map[string]string) {
	m.t.Helper()
	check := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	old, _ := os.Readlink(filepath.Join(m.dir, "..data"))
	m.turns++
	now := "..turn_" + strconv.Itoa(m.turns)
	check(os.Mkdir(filepath.Join(m.dir, now), 0o755))
	for name, text := range files {
		check(os.WriteFile(filepath.Join(m.dir, now, name), []byte(text), 0o644))
	}
	check(os.Symlink(now, filepath.Join(m.dir, "..data_tmp")))
	check(os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")))
	if old == "" {
		for name := range files {
			check(os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name)))
		}
		return
	}
	check(os.RemoveAll(filepath.Join(m.dir, old)))
}

// Token keys are rotated while bridges are made all the time: not one fails, and one that
// is open goes on.
func TestRotateTokenKeys(t *testing.T) {
	for _, tt := range []struct {
		name, every string
		kubernetes  bool
		told        bool // by SIGHUP
	}{
		{"renamed", "10ms", false, false},
		{"Kubernetes", "10ms", true, false},
		{"SIGHUP", "0", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "token-keys")
			write := func(text string) { put(t, file, text) }
			if tt.kubernetes {
				m := &mount{t: t, dir: dir}
				write = func(text string) { m.publish(map[string]string{"token-keys": text}) }
			}
			a, b := token.NewKey(), token.NewKey()
			write(a.Reveal() + "\n")
			r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_TOKEN_KEYS_FILE": file, "RELAY_RELOAD": tt.every,
				"RELAY_CONNECTS_PER_DEVICE": "0", "RELAY_CONNECTS_PER_PRINCIPAL": "0", "RELAY_CONNECTS_PER_ADDRESS": "0"}) // a crowd is as fast as it can
			r.device("pump-7")
			open, err := r.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()

			crowd := newCrowd(r, 4)
			for _, keys := range [][]token.Key{{a, b}, {b, a}, {b}} {
				crowd.round()
				var texts, ids []string
				for _, k := range keys {
					texts, ids = append(texts, k.Reveal()), append(ids, k.Fingerprint())
				}
				write("# rotated\n" + strings.Join(texts, "\n"))
				if tt.told {
					raise(t, syscall.SIGHUP)
				}
				r.log.wait(t, `level=INFO msg=reloaded setting=RELAY_TOKEN_KEYS_FILE keys="?token.Ring\(`+strings.Join(ids, " ")+`\)`)
				crowd.round() // what the keys before have sealed is used
				r.echo(open)
			}
			crowd.stop()
			for _, k := range []token.Key{a, b} {
				if strings.Contains(r.log.String(), k.Reveal()) {
					t.Error("a key is in the log")
				}
			}
		})
	}
}

// A crowd makes bridges all the time, each a new one when the last is over. None may fail.
type crowd struct {
	r    *relayRun
	end  chan struct{}
	wg   sync.WaitGroup
	made []atomic.Int64 // bridges of each
	more chan struct{}  // may get a value after each
}

func newCrowd(r *relayRun, n int) *crowd {
	c := &crowd{r: r, end: make(chan struct{}), made: make([]atomic.Int64, n), more: make(chan struct{}, 1)}
	for i := range n {
		c.wg.Go(func() {
			for {
				select {
				case <-c.end:
					return
				default:
				}
				s, err := r.dial()
				if err != nil {
					r.t.Errorf("after %d bridges: %v", c.made[i].Load(), err)
					return
				}
				s.Close()
				c.made[i].Add(1)
				select {
				case c.more <- struct{}{}:
				default:
				}
			}
		})
	}
	return c
}

// round waits until each has made two more: the second began after round did.
func (c *crowd) round() {
	c.r.t.Helper()
	late := time.After(patience)
	for i := range c.made {
		for want := c.made[i].Load() + 2; c.made[i].Load() < want; {
			select {
			case <-c.more:
			case <-late:
				c.stop()
				c.r.t.Fatal("no more bridges are made")
			}
		}
	}
}

func (c *crowd) stop() {
	close(c.end)
	c.wg.Wait()
}
