package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"websocketbridge/test/process/processtest"
)

// A lab is a relay with the fake signaler, in this process or in another one.
type lab struct {
	relay string // ws://127.0.0.1:…
	hub   string // ws://127.0.0.1:…, the fake's endpoint
	key   string // an API key
}

func (l lab) connectURL(device string, early bool, data string) string {
	q := url.Values{"deviceId": {device}}
	if early {
		q.Set("upgrade", "early")
	}
	if data != "" {
		q.Set("requestData", data)
	}
	return l.relay + "/bridge/connect?" + q.Encode()
}

// connect dials as a requester.
func (l lab) connect(lib library, url string, protocols ...string) (peer, error) {
	return lib.dial(url, http.Header{"X-Api-Key": {l.key}}, protocols...)
}

// online asks the fake hub whether a device is.
func (l lab) online(device string) error {
	body, err := get(strings.Replace(l.hub, "ws", "http", 1) + "/devices")
	if err != nil {
		return err
	}
	var known []struct {
		DeviceID string `json:"deviceId"`
		Online   bool   `json:"online"`
	}
	if err := json.Unmarshal(body, &known); err != nil {
		return err
	}
	for _, d := range known {
		if d.DeviceID == device && d.Online {
			return nil
		}
	}
	return fmt.Errorf("the hub has %s", body)
}

// A device hears signals at the fake hub, with a library that is not ours.
type device struct {
	lib library
	hub peer
}

// listen returns when the hub knows that the device is there.
func (l lab) listen(t *testing.T, lib library, id string) *device {
	t.Helper()
	p, err := lib.dial(l.hub+"/signals?deviceId="+url.QueryEscape(id), nil)
	if err != nil {
		t.Fatalf("dial the fake hub: %v", err)
	}
	t.Cleanup(func() { p.close(1000, "") })
	until(t, "device "+id+" is online", func() error { return l.online(id) })
	return &device{lib, p}
}

// A signal is what another maker's device reads of it.
type signal struct {
	AcceptURL   string `json:"acceptUrl"`
	RejectURL   string `json:"rejectUrl"`
	RequestData string `json:"requestData"`
	BridgeID    string `json:"bridgeId"`
	DeviceID    string `json:"deviceId"`
}

// signal waits for the next one and answers it: with refuse, if that is not empty.
func (d *device) signal(refuse string) (s signal, err error) {
	m, err := d.hub.box().next()
	if err != nil {
		return s, fmt.Errorf("wait for a signal: %w", err)
	}
	var delivery struct {
		ID     uint64 `json:"id"`
		Signal signal `json:"signal"`
	}
	if err := json.Unmarshal(m.data, &delivery); err != nil {
		return s, err
	}
	answer := fmt.Sprintf(`{"id":%d}`, delivery.ID)
	if refuse != "" {
		answer = fmt.Sprintf(`{"id":%d,"refuse":%s}`, delivery.ID, refuse)
	}
	return delivery.Signal, d.hub.send(message{true, []byte(answer)})
}

// result is what a dial in another goroutine came to.
type result struct {
	peer peer
	err  error
}

// start connects and returns at once.
func (l lab) start(lib library, url string, protocols ...string) <-chan result {
	done := make(chan result, 1)
	go func() {
		p, err := l.connect(lib, url, protocols...)
		done <- result{p, err}
	}()
	return done
}

// bridge opens one between two libraries.
func (l lab) bridge(t *testing.T, lib library, d *device, id string, early bool) (requester, dev peer) {
	t.Helper()
	const data = `opaque "data" ü € 𝄞 &=+%`
	done := l.start(lib, l.connectURL(id, early, data))
	s, err := d.signal("")
	if err != nil {
		t.Fatal(err)
	}
	if s.RequestData != data || s.DeviceID != id {
		t.Errorf("the signal has requestData %q and device %q, want %q and %q", s.RequestData, s.DeviceID, data, id)
	}
	if dev, err = d.lib.dial(s.AcceptURL, nil); err != nil {
		t.Fatalf("dial the accept URL: %v", err)
	}
	t.Cleanup(dev.abort)
	got := <-done
	if got.err != nil {
		t.Fatalf("connect: %v", got.err)
	}
	t.Cleanup(got.peer.abort)
	if id := got.peer.header().Get("Bridge-Id"); !early && id != s.BridgeID {
		t.Errorf("the requester's 101 has Bridge-Id %q, the signal %q", id, s.BridgeID)
	}
	if ext := got.peer.header().Get("Sec-Websocket-Extensions"); ext != "" {
		t.Errorf("the relay agreed on extensions %q, and has none", ext)
	}
	return got.peer, dev
}

// until waits for a state; missing says why it is not there.
func until(t *testing.T, what string, missing func() error) {
	t.Helper()
	processtest.UntilNil(t, patience, what, missing)
}

var direct = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience} // no proxy

func get(url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := direct.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func post(url string, body []byte) (int, error) {
	resp, err := direct.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}
