package emulator

import (
	"fmt"
	"slices"
	"strings"
)

// An Action is a fault that happens once, now; its JSON form is what the admin API
// takes.
type Action struct {
	// Do is
	//
	//	disconnect  cut the connection of Device, or of its Module
	//	dropAll     cut every connection of a device or a service
	//	detach      AMQP: DETACH every link but those of $cbs, with the condition
	//	close       AMQP: CLOSE every connection, with the condition
	//	redeliver   end the locks of all messages that Device, or every device, has not settled
	Do          string `json:"do"`
	Device      string `json:"device,omitempty"`
	Module      string `json:"module,omitempty"`
	Condition   string `json:"condition,omitempty"` // "": amqp:link:detach-forced, or amqp:connection:forced
	Description string `json:"description,omitempty"`
}

var actions = []string{"disconnect", "dropAll", "detach", "close", "redeliver"}

// Do does an action. The error is for one that is not known, or for a device that
// is not.
func (h *Hub) Do(a Action) error {
	if !slices.Contains(actions, a.Do) {
		return fmt.Errorf("action: do is %q; it is one of %s", a.Do, strings.Join(actions, ", "))
	}
	id := identity{a.Device, a.Module}
	if a.Do == "disconnect" || a.Do == "redeliver" && a.Device != "" {
		h.mu.Lock()
		_, err := h.find(id)
		h.mu.Unlock()
		if err != nil {
			return fmt.Errorf("action %s: the hub does not know %q", a.Do, id.String())
		}
	}
	switch a.Do {
	case "disconnect":
		h.Disconnect(a.Device, a.Module)
	case "dropAll":
		h.DropAll()
	case "redeliver":
		h.redeliver(id)
	default:
		h.mu.Lock()
		var all []*watcher
		for w := range h.watchers {
			all = append(all, w)
		}
		h.mu.Unlock()
		for _, w := range all {
			w.act(a)
		}
	}
	return nil
}

func (h *Hub) redeliver(id identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.devices {
		for r := range d.all {
			if r.link != nil && (id.Device == "" || r.id == id) {
				h.requeueAll(r.link)
			}
		}
	}
}

// A watcher hears of actions that a protocol has to do.
type watcher struct{ act func(Action) }

// watch calls act for the actions detach and close until stop is called. It is
// called in the goroutine of Do, and must not block; also shortly after stop.
func (h *Hub) watch(act func(Action)) (stop func()) {
	w := &watcher{act}
	h.mu.Lock()
	h.watchers[w] = struct{}{}
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}
}
