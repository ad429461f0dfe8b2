package fake

import (
	"net/http"
	"sync"
)

// A room counts running handlers: http.Server waits for none whose connection
// was upgraded. A sync.WaitGroup would not do, since a last request may come in
// while Serve waits.
type room struct {
	mu    sync.Mutex // guards n and shut
	n     int
	shut  bool
	empty chan struct{} // closed when shut and n is 0
}

func newRoom() *room { return &room{empty: make(chan struct{})} }

func (r *room) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.add(1) {
			http.Error(w, "the hub stops", http.StatusServiceUnavailable)
			return
		}
		defer r.add(-1)
		next.ServeHTTP(w, req)
	})
}

func (r *room) add(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut && n > 0 {
		return false
	}
	r.n += n
	if r.shut && r.n == 0 {
		close(r.empty)
	}
	return true
}

// leave lets nobody in and returns when the last one is out.
func (r *room) leave() {
	r.mu.Lock()
	r.shut = true
	if r.n == 0 {
		close(r.empty)
	}
	r.mu.Unlock()
	<-r.empty
}
