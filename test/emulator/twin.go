package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"time"
)

// A twin is an identity's tags and properties. Objects are map[string]any, and
// numbers json.Number, so that what a device wrote comes back as it was.
type twin struct {
	etag                            string
	version                         int
	tags                            map[string]any
	desired, reported               map[string]any
	desiredVersion, reportedVersion int64
	desiredUpdated, reportedUpdated time.Time
}

func newTwin() twin {
	now := time.Now()
	return twin{
		etag: newETag(), version: 1, tags: map[string]any{}, desired: map[string]any{}, reported: map[string]any{},
		desiredVersion: 1, reportedVersion: 1, desiredUpdated: now, reportedUpdated: now,
	}
}

// decodeJSON reads one JSON value, with numbers as they are written.
func decodeJSON(b []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("bytes after the JSON value")
	}
	return nil
}

// merge changes to by patch as RFC 7396 says: null deletes, objects merge, the
// rest replaces.
func merge(to, patch map[string]any) map[string]any {
	out := make(map[string]any, len(to)+len(patch))
	for k, v := range to {
		out[k] = v
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			old, _ := out[k].(map[string]any)
			out[k] = merge(old, v)
		default:
			out[k] = v
		}
	}
	return out
}

// section checks a patch of tags, desired or reported properties, and takes out
// what starts with $: versions and metadata, which clients send back.
func section(name string, v map[string]any) (map[string]any, *hubError) {
	out := make(map[string]any, len(v))
	for k, x := range v {
		if !strings.HasPrefix(k, "$") {
			out[k] = x
		}
	}
	if err := checkNames(name, out, 1); err != nil {
		return nil, err
	}
	return out, nil
}

// maxTwinDepth is how deep properties nest, as IoT Hub has it.
const maxTwinDepth = 10

func checkNames(where string, v map[string]any, depth int) *hubError {
	if depth > maxTwinDepth {
		return errArgument("%s nests deeper than %d.", where, maxTwinDepth)
	}
	for k, x := range v {
		if k == "" || len(k) > 1024 || strings.ContainsAny(k, ".$ \x00") {
			return errArgument("%s has a name that is empty, longer than 1024 bytes, or has one of . $ and space.", where)
		}
		if o, ok := x.(map[string]any); ok {
			if err := checkNames(where, o, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// fits says whether a section is small enough.
func fits(v map[string]any) *hubError {
	if b, _ := json.Marshal(v); len(b) > maxTwinSection {
		return errTooLarge(413, len(b), maxTwinSection)
	}
	return nil
}

// getTwin is what a device reads: both sections with their versions.
func (a *attachment) getTwin() ([]byte, *hubError) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if err := a.twinAllowed(); err != nil {
		return nil, err
	}
	t := &a.r.twin
	b, _ := json.Marshal(map[string]any{
		"desired":  versioned(t.desired, t.desiredVersion),
		"reported": versioned(t.reported, t.reportedVersion),
	})
	return b, nil
}

func (a *attachment) twinAllowed() *hubError {
	if a.dead {
		return errDisconnected()
	}
	a.r.lastActivity = time.Now()
	if !a.h.tier().devices {
		return errTier(a.h.cfg.Tier, "Twins are")
	}
	return nil
}

func versioned(v map[string]any, version int64) map[string]any {
	return merge(v, map[string]any{"$version": version})
}

// patchReported is a device's change of its reported properties. It returns their
// new version.
func (a *attachment) patchReported(patch []byte) (int64, *hubError) {
	var v map[string]any
	if err := decodeJSON(patch, &v); err != nil || v == nil {
		return 0, errArgument("The patch is not a JSON object.")
	}
	v, err := section("reported", v)
	if err != nil {
		return 0, err
	}
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if err := a.twinAllowed(); err != nil {
		return 0, err
	}
	t := &a.r.twin
	next := merge(t.reported, v)
	if err := fits(next); err != nil {
		return 0, err
	}
	t.reported, t.reportedUpdated = next, time.Now()
	t.reportedVersion++
	t.touch()
	return t.reportedVersion, nil
}

func (t *twin) touch() {
	t.version++
	t.etag = newETag()
}

// A twinPatch is a service's change. A nil section stays as it is.
type twinPatch struct {
	Tags       map[string]any `json:"tags"`
	Properties struct {
		Desired map[string]any `json:"desired"`
	} `json:"properties"`
}

// updateTwin merges a service's change, or replaces the sections that it has, and
// tells the device. The caller holds mu.
func (h *Hub) updateTwin(r *record, p twinPatch, replace bool) *hubError {
	t := &r.twin
	tags, desired := t.tags, t.desired
	var change map[string]any
	for _, s := range []struct {
		name  string
		patch map[string]any
		to    *map[string]any
	}{{"tags", p.Tags, &tags}, {"desired", p.Properties.Desired, &desired}} {
		if s.patch == nil {
			continue
		}
		patch, err := section(s.name, s.patch)
		if err != nil {
			return err
		}
		if s.name == "desired" {
			change = patch
			if replace {
				change = difference(desired, patch)
			}
		}
		base := *s.to
		if replace {
			base = nil
		}
		*s.to = merge(base, patch)
		if err := fits(*s.to); err != nil {
			return err
		}
	}
	t.tags, t.desired = tags, desired
	t.touch()
	if p.Properties.Desired == nil {
		return nil
	}
	t.desiredVersion++
	t.desiredUpdated = time.Now()
	if r.takes(ListenDesired) {
		r.link.link.desired(t.desiredVersion, withVersion(change, t.desiredVersion))
	}
	return nil
}

// withVersion is a patch as a device gets it: nulls stay in it.
func withVersion(patch map[string]any, version int64) []byte {
	out := make(map[string]any, len(patch)+1)
	for k, v := range patch {
		out[k] = v
	}
	out["$version"] = version
	b, _ := json.Marshal(out)
	return b
}

// difference is the patch that makes to of from, so that a device can be told of
// a replacement: what is gone is null in it.
func difference(from, to map[string]any) map[string]any {
	out := make(map[string]any)
	for k := range from {
		if _, ok := to[k]; !ok {
			out[k] = nil
		}
	}
	for k, v := range to {
		was, a := from[k].(map[string]any)
		is, b := v.(map[string]any)
		if a && b {
			if d := difference(was, is); len(d) > 0 {
				out[k] = d
			}
		} else if !reflect.DeepEqual(from[k], v) {
			out[k] = v
		}
	}
	return out
}

// twinJSON is a twin as REST and queries show it. The caller holds mu.
func (h *Hub) twinJSON(r *record) map[string]any {
	t := &r.twin
	d := h.devices[r.id.Device]
	out := map[string]any{
		"deviceId": r.id.Device, "etag": t.etag, "deviceEtag": r.etag, "status": statusName(d.disabled),
		"statusUpdateTime": stamp(d.statusUpdated), "connectionState": stateName(r.connectionState(h.cfg.ConnectionStateLag)),
		"lastActivityTime": stamp(r.lastActivity), "cloudToDeviceMessageCount": len(r.messages), "authenticationType": string(r.auth),
		"x509Thumbprint": map[string]any{"primaryThumbprint": orNull(r.thumbprints[0]), "secondaryThumbprint": orNull(r.thumbprints[1])},
		"version":        t.version, "tags": t.tags,
		"properties": map[string]any{
			"desired":  withMetadata(t.desired, t.desiredVersion, t.desiredUpdated),
			"reported": withMetadata(t.reported, t.reportedVersion, t.reportedUpdated),
		},
	}
	if r.id.Module != "" {
		out["moduleId"] = r.id.Module
	} else {
		out["capabilities"] = map[string]any{"iotEdge": false}
	}
	return out
}

func withMetadata(v map[string]any, version int64, updated time.Time) map[string]any {
	return merge(v, map[string]any{"$version": version, "$metadata": map[string]any{"$lastUpdated": stamp(updated)}})
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func statusName(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "enabled"
}

func stateName(connected bool) string {
	if connected {
		return "Connected"
	}
	return "Disconnected"
}
