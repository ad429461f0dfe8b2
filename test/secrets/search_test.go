//go:build linux

package secrets_test

import (
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func bridgeTokens(text string) (tokens []string) {
	for _, m := range tokenOnWire.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(tokens, m[1]) {
			tokens = append(tokens, m[1])
		}
	}
	return tokens
}

// learn adds what went over the wires: tokens of bridges and of the hub.
func (s *scene) learn() {
	for _, p := range []*tap{s.hubTap, s.hubREST, s.agentHub, s.public, s.entrance} {
		for i, tok := range bridgeTokens(p.heard()) {
			s.secrets.add(fmt.Sprintf("bridge token %d", i), tok)
		}
	}
	for name, p := range map[string]*tap{"AMQP": s.hubTap, "REST": s.hubREST, "MQTT": s.agentHub} {
		found := sasOnWire.FindAllStringSubmatch(p.heard(), -1)
		if len(found) == 0 {
			s.t.Errorf("no token of the hub went by AMQP, REST or MQTT: %s", name)
		}
		for _, m := range found {
			sig, err := url.QueryUnescape(m[1])
			if err != nil {
				s.t.Error(err)
			}
			s.secrets.add("token of the hub by "+name, sig)
		}
	}
}

// search looks through whatever was said, and through files that appeared.
func (s *scene) search() {
	if len(s.secrets.names) < 30 {
		s.t.Errorf("only %d secrets are known", len(s.secrets.names))
	}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !s.planted[path] {
			text := read(s.t, path)
			s.said["file "+strings.TrimPrefix(path, s.dir)] = func() string { return text }
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range s.nodes {
		text := s.said[fmt.Sprintf("file /audit%d.jsonl", i+1)]()
		for _, event := range []string{"started", "refused", "opened", "closed", "config_reloaded"} {
			if !strings.Contains(text, `"event":"`+event+`"`) {
				s.t.Errorf("no %s in the audit log of node %d", event, i+1)
			}
		}
	}
	size := 0
	for name, said := range s.said {
		text := said()
		size += len(text)
		for _, hit := range s.secrets.find(text) {
			s.t.Errorf("%s: %s", name, hit)
		}
	}
	s.t.Logf("%d secrets, %d outputs with %d bytes", len(s.secrets.names), len(s.said), size)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(b), "\n")
}

// freeAddrs finds loopback addresses that nobody listens on now.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
