package c2d

import "sync"

// A crew is goroutines that somebody waits for. Unlike a sync.WaitGroup it may be
// joined while its end is waited for: then it says no.
type crew struct {
	mu   sync.Mutex // guards shut, and wg's Go against its Wait
	shut bool
	wg   sync.WaitGroup
}

// Go runs f unless the crew was told to leave.
func (c *crew) Go(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	c.wg.Go(f)
	return true
}

// Wait lets nobody in and returns when the last one is out.
func (c *crew) Wait() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.wg.Wait()
}
