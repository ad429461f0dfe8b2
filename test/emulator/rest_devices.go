package emulator

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// identityJSON is a device or a module of the registry.
type identityJSON struct {
	DeviceID                   string             `json:"deviceId"`
	ModuleID                   string             `json:"moduleId,omitempty"`
	ManagedBy                  string             `json:"managedBy,omitempty"`
	GenerationID               string             `json:"generationId"`
	ETag                       string             `json:"etag"`
	ConnectionState            string             `json:"connectionState"`
	Status                     string             `json:"status,omitempty"`
	StatusReason               *string            `json:"statusReason,omitempty"`
	ConnectionStateUpdatedTime string             `json:"connectionStateUpdatedTime"`
	StatusUpdatedTime          string             `json:"statusUpdatedTime,omitempty"`
	LastActivityTime           string             `json:"lastActivityTime"`
	CloudToDeviceMessageCount  int                `json:"cloudToDeviceMessageCount"`
	Authentication             authenticationJSON `json:"authentication"`
	Capabilities               map[string]any     `json:"capabilities,omitempty"`
}

type authenticationJSON struct {
	SymmetricKey struct {
		Primary   *string `json:"primaryKey"`
		Secondary *string `json:"secondaryKey"`
	} `json:"symmetricKey"`
	Thumbprint struct {
		Primary   *string `json:"primaryThumbprint"`
		Secondary *string `json:"secondaryThumbprint"`
	} `json:"x509Thumbprint"`
	Type authType `json:"type"`
}

// identityJSON shows a record. The caller holds mu.
func (h *Hub) identityJSON(r *record) identityJSON {
	out := identityJSON{
		DeviceID: r.id.Device, ModuleID: r.id.Module, GenerationID: r.generation, ETag: r.etag,
		ConnectionState:            stateName(r.connectionState(h.cfg.ConnectionStateLag)),
		ConnectionStateUpdatedTime: stamp(r.stateUpdated), LastActivityTime: stamp(r.lastActivity),
		CloudToDeviceMessageCount: len(r.messages),
	}
	if r.id.Module == "" {
		out.Status, out.StatusUpdatedTime = statusName(r.disabled), stamp(r.statusUpdated)
		out.Capabilities = map[string]any{"iotEdge": false}
		if r.statusReason != "" {
			out.StatusReason = &r.statusReason
		}
	}
	a := &out.Authentication
	a.Type = r.auth
	a.SymmetricKey.Primary, a.SymmetricKey.Secondary = nonEmpty(r.primary), nonEmpty(r.secondary)
	a.Thumbprint.Primary, a.Thumbprint.Secondary = nonEmpty(r.thumbprints[0]), nonEmpty(r.thumbprints[1])
	return out
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (h *Hub) restGet(q *request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.find(q.id)
	if err != nil {
		return 0, nil, err
	}
	q.header.Set("ETag", `"`+r.etag+`"`)
	return 200, h.identityJSON(r), nil
}

// matches says whether If-Match lets a change happen: *, "*", the etag, or the
// etag in quotes. set: there is one at all.
func matches(q *request, etag string) (ok, set bool) {
	v := strings.Trim(strings.TrimPrefix(q.Header.Get("If-Match"), "W/"), `"`)
	return v == "*" || v == etag, v != ""
}

func (h *Hub) restPut(q *request) (int, any, *hubError) {
	var in identityJSON
	if err := json.Unmarshal(q.body, &in); err != nil {
		return 0, nil, errArgument("The body is not a device's JSON.")
	}
	switch {
	case !goodID(q.id.Device) || q.id.Module != "" && !goodID(q.id.Module):
		return 0, nil, errArgument("The ID is not 1 to 128 ASCII letters, digits and -.+%%_#*?!(),:=@$'.")
	case in.DeviceID != "" && in.DeviceID != q.id.Device || in.ModuleID != "" && in.ModuleID != q.id.Module:
		return 0, nil, errArgument("The ID in the body is not the one in the path.")
	case in.Status != "" && in.Status != "enabled" && in.Status != "disabled":
		return 0, nil, errArgument("status is neither enabled nor disabled.")
	case q.id.Module != "" && !h.tier().devices:
		return 0, nil, errTier(h.cfg.Tier, "Modules are")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r, missing := h.find(q.id)
	if missing != nil && (q.id.Module == "" || h.devices[q.id.Device] != nil) {
		return h.restCreate(q, in, missing)
	} else if missing != nil {
		return 0, nil, missing
	}
	ok, set := matches(q, r.etag)
	switch {
	case !set:
		return 0, nil, errExists(q.id)
	case !ok:
		return 0, nil, errPrecondition()
	}
	c := r.credentials
	if err := in.Authentication.into(&c); err != nil {
		return 0, nil, err
	}
	r.credentials = c
	r.touch()
	if q.id.Module == "" {
		h.setStatus(r, in.Status == "disabled", text(in.StatusReason))
	}
	return 200, h.identityJSON(r), nil
}

// restCreate is restPut of an identity that is not there. The caller holds mu.
func (h *Hub) restCreate(q *request, in identityJSON, missing *hubError) (int, any, *hubError) {
	if _, set := matches(q, ""); set {
		return 0, nil, missing // an update
	}
	if q.id.Module != "" && len(h.devices[q.id.Device].modules) >= maxModules {
		return 0, nil, &hubError{Status: 403, Code: 403000, Name: "ModuleLimitExceeded", Message: "The device has " + strconv.Itoa(maxModules) + " modules, the most."}
	}
	c := credentials{auth: authSAS}
	if in.Authentication.Type == "" && in.Authentication.Thumbprint.Primary != nil {
		c.auth = authSelf
	}
	if err := in.Authentication.into(&c); err != nil {
		return 0, nil, err
	}
	r := h.create(q.id, c)
	if q.id.Module == "" {
		h.setStatus(r, in.Status == "disabled", text(in.StatusReason))
	}
	return 200, h.identityJSON(r), nil
}

// into changes c to what a request says. What it leaves out, or empty, stays, or
// is made if there is none.
func (a *authenticationJSON) into(c *credentials) *hubError {
	c.auth = cmp.Or(a.Type, c.auth)
	c.primary, c.secondary = cmp.Or(text(a.SymmetricKey.Primary), c.primary), cmp.Or(text(a.SymmetricKey.Secondary), c.secondary)
	for i, t := range []*string{a.Thumbprint.Primary, a.Thumbprint.Secondary} {
		c.thumbprints[i] = cmp.Or(text(t), c.thumbprints[i])
	}
	if err := c.fill(); err != nil {
		return errArgument("authentication: %v.", err)
	}
	return nil
}

func (h *Hub) restDelete(q *request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.find(q.id)
	if err != nil {
		return 0, nil, err
	}
	if ok, set := matches(q, r.etag); set && !ok {
		return 0, nil, errPrecondition()
	}
	h.remove(r)
	return 204, nil, nil
}

func (h *Hub) restList(q *request) (int, any, *hubError) {
	top := 1000
	if s := q.URL.Query().Get("top"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1000 {
			return 0, nil, errArgument("top is not within [1; 1000].")
		}
		top = n
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []identityJSON{}
	for _, id := range slices.Sorted(maps.Keys(h.devices)) {
		if len(out) == top {
			break
		}
		out = append(out, h.identityJSON(h.devices[id]))
	}
	return 200, out, nil
}

func (h *Hub) restModules(q *request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.find(q.id)
	if err != nil {
		return 0, nil, err
	}
	out := []identityJSON{}
	for _, id := range slices.Sorted(maps.Keys(r.modules)) {
		out = append(out, h.identityJSON(r.modules[id]))
	}
	return 200, out, nil
}

func (h *Hub) restPurge(q *request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := h.find(q.id)
	if err != nil {
		return 0, nil, err
	}
	return 200, map[string]any{"deviceId": q.id.Device, "moduleId": nil, "totalMessagesPurged": h.purge(r)}, nil
}

func (h *Hub) restDeviceStatistics(*request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	disabled := 0
	for _, d := range h.devices {
		if d.disabled {
			disabled++
		}
	}
	return 200, map[string]any{"totalDeviceCount": len(h.devices), "enabledDeviceCount": len(h.devices) - disabled, "disabledDeviceCount": disabled}, nil
}

func (h *Hub) restServiceStatistics(*request) (int, any, *hubError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, d := range h.devices {
		if d.connectionState(h.cfg.ConnectionStateLag) {
			n++
		}
	}
	return 200, map[string]any{"connectedDeviceCount": n}, nil
}
