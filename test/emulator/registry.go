package emulator

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"websocketbridge/signaler/sas"
)

// A record is what the hub knows of an identity. Hub.mu guards it.
type record struct {
	id           identity
	generation   string // another one after delete and create
	etag         string // another one after each change
	disabled     bool
	statusReason string
	credentials
	statusUpdated, stateUpdated, lastActivity time.Time
	deleted                                   bool
	modules                                   map[string]*record // of a device
	twin                                      twin

	link     *attachment   // nil: not connected
	changed  chan struct{} // closed and replaced when link or what it listens for changes
	shown    bool          // what REST says of the connection, until shownAt
	shownAt  time.Time
	messages queue
	session  map[string]byte // subscriptions of MQTT's CleanSession 0; nil: none
}

func newRecord(id identity, c credentials) *record {
	return &record{
		id: id, credentials: c, generation: strconv.FormatInt(time.Now().UnixNano(), 10), etag: newETag(),
		modules: make(map[string]*record), changed: make(chan struct{}), twin: newTwin(),
	}
}

func newETag() string { return base64.StdEncoding.EncodeToString(randomBytes(9)) }

// touch gives a record that changed a new etag.
func (r *record) touch() { r.etag = newETag() }

// signal wakes who waits for the record's connection. The caller holds mu.
func (r *record) signal() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// all yields the record and its modules'.
func (r *record) all(yield func(*record) bool) {
	if !yield(r) {
		return
	}
	for _, m := range r.modules {
		if !yield(m) {
			return
		}
	}
}

// find returns the record of a device or a module. The caller holds mu.
func (h *Hub) find(id identity) (*record, *hubError) {
	d := h.devices[id.Device]
	if d == nil {
		return nil, errNoDevice(id)
	}
	if id.Module == "" {
		return d, nil
	}
	if m := d.modules[id.Module]; m != nil {
		return m, nil
	}
	return nil, errNoModule(id)
}

// enabled is find for what a disabled device cannot do: to whoever asks, it is
// not there. The caller holds mu.
func (h *Hub) enabled(id identity) (*record, *hubError) {
	r, err := h.find(id)
	if err == nil && h.devices[id.Device].disabled {
		return nil, errNoDevice(id)
	}
	return r, err
}

// PutDevice makes a device, or changes the status, the given credentials and the
// given modules of one that exists; it stays connected unless it is disabled. The
// device is returned with the keys that the hub made, or has.
func (h *Hub) PutDevice(d Device) (Device, error) {
	if !goodID(d.ID) {
		return Device{}, fmt.Errorf("put device: %q is no device ID: 1 to 128 ASCII letters, digits and -.+%%_#*?!(),:=@$'", d.ID)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.devices[d.ID]
	c, err := newCredentials(r, d.PrimaryKey, d.SecondaryKey, d.Thumbprints, d.CertificateAuthority)
	if err != nil {
		return Device{}, fmt.Errorf("put %v: %w", d, err)
	}
	if r == nil {
		r = h.create(identity{Device: d.ID}, c)
	} else {
		r.credentials = c
		r.touch()
	}
	h.setStatus(r, d.Disabled, "")
	d.PrimaryKey, d.SecondaryKey = c.primary, c.secondary
	modules := make([]Module, len(d.Modules))
	for i, m := range d.Modules {
		if modules[i], err = h.putModule(r, m); err != nil {
			return Device{}, fmt.Errorf("put device %s: %w", d.ID, err)
		}
	}
	d.Modules = modules
	return d, nil
}

// PutModule makes a module of a device that exists, or changes its credentials. A
// device has at most 50.
func (h *Hub) PutModule(deviceID string, m Module) (Module, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, missing := h.find(identity{Device: deviceID})
	if missing != nil {
		return Module{}, fmt.Errorf("put module: there is no device %q", deviceID)
	}
	m, err := h.putModule(d, m)
	if err != nil {
		return Module{}, fmt.Errorf("put module: %w", err)
	}
	return m, nil
}

// putModule is PutModule with mu held.
func (h *Hub) putModule(d *record, m Module) (Module, error) {
	if !goodID(m.ID) {
		return Module{}, fmt.Errorf("%q is no module ID", m.ID)
	}
	r := d.modules[m.ID]
	c, err := newCredentials(r, m.PrimaryKey, m.SecondaryKey, m.Thumbprints, false)
	if err != nil {
		return Module{}, fmt.Errorf("%v: %w", m, err)
	}
	if r != nil {
		r.credentials = c
		r.touch()
	} else if len(d.modules) >= maxModules {
		return Module{}, fmt.Errorf("a device has at most %d modules", maxModules)
	} else {
		h.create(identity{d.id.Device, m.ID}, c)
	}
	m.PrimaryKey, m.SecondaryKey = c.primary, c.secondary
	return m, nil
}

// DeleteDevice deletes a device, or fails if there is none: its modules, what is
// queued for it, feedback that nobody fetched, and its connections go with it.
func (h *Hub) DeleteDevice(id string) error { return h.deleteIdentity(identity{Device: id}) }

// DeleteModule deletes a module.
func (h *Hub) DeleteModule(deviceID, id string) error {
	return h.deleteIdentity(identity{deviceID, id})
}

func (h *Hub) deleteIdentity(id identity) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.find(id)
	if err != nil {
		return fmt.Errorf("delete: there is no %v", id)
	}
	h.remove(r)
	return nil
}

// create adds a record that is not there yet. The caller holds mu.
func (h *Hub) create(id identity, c credentials) *record {
	r := newRecord(id, c)
	if id.Module == "" {
		h.devices[id.Device] = r
	} else {
		h.devices[id.Device].modules[id.Module] = r
	}
	return r
}

// remove deletes a record and all that hangs on it. The caller holds mu.
func (h *Hub) remove(r *record) {
	for gone := range r.all {
		gone.deleted = true
		h.cut(gone, errDeleted, errNoDevice(gone.id))
		h.dropQueue(gone)
		gone.signal()
	}
	if r.id.Module == "" {
		delete(h.devices, r.id.Device)
	} else {
		delete(h.devices[r.id.Device].modules, r.id.Module)
	}
	h.forgetFeedback(r)
}

// Why a connection was cut; for logs.
var (
	errDeleted  = errors.New("the identity was deleted")
	errDisabled = errors.New("the device was disabled")
	errTaken    = errors.New("the identity connected again")
	errExpired  = errors.New("the token expired")
	errTold     = errors.New("told to disconnect")
	errStopped  = errors.New("the hub stops")
)

// setStatus enables or disables. The caller holds mu.
func (h *Hub) setStatus(r *record, disabled bool, reason string) {
	if r.disabled != disabled {
		r.statusUpdated = time.Now()
	}
	r.disabled, r.statusReason = disabled, reason
	if disabled {
		for gone := range r.all {
			h.cut(gone, errDisabled, errDisconnected())
		}
	}
}

// DeviceConnectionString returns what a device's program is given. It holds a
// key, or x509=true.
func (h *Hub) DeviceConnectionString(id string) (string, error) {
	return h.connectionString(identity{Device: id})
}

// ModuleConnectionString is DeviceConnectionString of a module.
func (h *Hub) ModuleConnectionString(id, module string) (string, error) {
	return h.connectionString(identity{id, module})
}

func (h *Hub) connectionString(id identity) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.find(id)
	if err != nil {
		return "", fmt.Errorf("connection string: there is no %v", id)
	}
	parts := []string{"HostName=" + h.cfg.HostName, "DeviceId=" + id.Device}
	if id.Module != "" {
		parts = append(parts, "ModuleId="+id.Module)
	}
	if r.auth == authSAS {
		parts = append(parts, "SharedAccessKey="+r.primary)
	} else {
		parts = append(parts, "x509=true")
	}
	return strings.Join(parts, ";"), nil
}

// resource is what a token for id is about.
func (h *Hub) resource(host string, id identity) string {
	return sas.Resource(host, id.Device, id.Module)
}
