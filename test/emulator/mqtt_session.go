package emulator

import (
	"maps"
	"runtime"
	"sync"
	"weak"
)

// sessions are the subscriptions to messages of identities that connect with
// CleanSession 0, as map[string]byte by weak.Pointer[record]: a device that was deleted, and made
// again, has none. It is no field of record only so that MQTT stays in its files.
var sessions sync.Map

// savedSession returns a copy; nil: the identity has no session.
func savedSession(r *record) map[string]byte {
	v, ok := sessions.Load(weak.Make(r))
	if !ok {
		return nil
	}
	return maps.Clone(v.(map[string]byte))
}

// saveSession takes subs for its own.
func saveSession(r *record, subs map[string]byte) {
	key := weak.Make(r)
	if _, had := sessions.Swap(key, subs); !had {
		runtime.AddCleanup(r, func(key weak.Pointer[record]) { sessions.Delete(key) }, key)
	}
}

func forgetSession(r *record) { sessions.Delete(weak.Make(r)) }
