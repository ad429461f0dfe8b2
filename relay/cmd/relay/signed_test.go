package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/wire"
)

// getSigned asks for a URL that lasts as long as said.
func (r *relayRun) getSigned(ttl time.Duration) (int, string) {
	r.t.Helper()
	q := url.Values{wire.ParamDeviceID: {"pump-7"}, wire.ParamTarget: {"echo"}, wire.ParamExpirationUTC: {time.Now().Add(ttl).UTC().Format(time.RFC3339)}}
	req, err := http.NewRequest("GET", strings.Replace(r.url, "ws", "http", 1)+wire.PathGetSignedURL+"?"+q.Encode(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set(wire.HeaderAPIKey, r.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestSignedTTL(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_SIGNED_TTL": "1h", "RELAY_LOG_LEVEL": "debug"})
	if status, body := r.getSigned(2 * time.Hour); status != http.StatusBadRequest || !strings.Contains(body, "within 1h0m0s") {
		t.Errorf("got %d %s", status, body)
	}
	status, signed := r.getSigned(30 * time.Minute)
	if status != http.StatusOK || !strings.HasPrefix(signed, r.url+wire.PathConnectSigned+"?") {
		t.Fatalf("got %d %s", status, signed)
	}
	r.device("pump-7")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := r.dialer()
	c, err := d.DialWebSocket(ctx, signed, nil, wire.SessionV1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if c.Subprotocol() != wire.SessionV1 {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	r.log.wait(t, `msg="bridge open" .*principal=signed:ops target=echo`)
	if strings.Contains(r.log.String(), "signature=") {
		t.Errorf("the URL is in the log:\n%s", r.log.String())
	}
}

func TestNoSignedURLs(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true", "RELAY_SIGNED_TTL": "0"})
	if status, body := r.getSigned(time.Minute); status != http.StatusForbidden || !strings.Contains(body, "no signed URLs") {
		t.Errorf("got %d %s", status, body)
	}
}
