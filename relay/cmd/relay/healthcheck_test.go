package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	answers := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answers[r.URL.Path])
		w.Write([]byte(strings.TrimPrefix(r.URL.Path, "/") + "\n"))
	}))
	defer s.Close()
	addr := s.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, tt := range []struct {
		name            string
		listen          string
		args            []string
		healthz, readyz int
		out, fault      string
	}{
		{name: "well", listen: addr, healthz: 200, readyz: 503, out: "healthz\n"},
		{name: "not ready", listen: addr, args: []string{"--ready"}, healthz: 200, readyz: 503, fault: "the node says 503: readyz"},
		{name: "ready", listen: addr, args: []string{"--ready"}, healthz: 500, readyz: 200, out: "readyz\n"},
		{name: "sick", listen: addr, healthz: 500, fault: "the node says 500: healthz"},
		{name: "every address", listen: "0.0.0.0:" + port, healthz: 200, out: "healthz\n"},
		{name: "every address of IPv6", listen: "[::]:" + port, healthz: 200, out: "healthz\n"},
		{name: "no address", listen: ":" + port, healthz: 200, out: "healthz\n"},
		{name: "nobody there", listen: gone.Addr().String(), fault: "no node answers at RELAY_ADMIN_LISTEN: "},
		{name: "no admin listener", fault: "RELAY_ADMIN_LISTEN is empty"},
		{name: "no port", listen: "localhost", fault: "RELAY_ADMIN_LISTEN: "},
	} {
		answers["/healthz"], answers["/readyz"] = tt.healthz, tt.readyz
		got := with(t, map[string]string{"RELAY_ADMIN_LISTEN": tt.listen, "HTTP_PROXY": "http://127.0.0.1:1"}, "", append([]string{"healthcheck"}, tt.args...)...)
		if (got.fault != nil) != (tt.fault != "") || got.fault != nil && !strings.HasPrefix(got.fault.Error(), tt.fault) || got.out != tt.out {
			t.Errorf("%s: got %q and %v; want %q, %q", tt.name, got.out, got.fault, tt.out, tt.fault)
		}
	}
}

// What it asks by default is where a node listens by default.
func TestHealthcheckDefault(t *testing.T) {
	f, _ := reflect.TypeFor[config]().FieldByName("AdminListen")
	if got := f.Tag.Get("default"); got != defaultAdmin {
		t.Errorf("a node listens at %s, and healthcheck asks %s", got, defaultAdmin)
	}
}

func TestHealthcheckOfANode(t *testing.T) {
	r := start(t, map[string]string{"RELAY_PLAIN": "true"})
	if got := with(t, map[string]string{"RELAY_ADMIN_LISTEN": r.admin}, "", "healthcheck", "--ready"); got.fault != nil || got.out != "ready\n" {
		t.Errorf("got %+v", got)
	}
}
