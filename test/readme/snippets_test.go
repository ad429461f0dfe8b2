package readme_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"websocketbridge/deviceagent"
	"websocketbridge/deviceagent/hub"
	"websocketbridge/relay"
	"websocketbridge/relay/auth"
	"websocketbridge/relay/client"
	"websocketbridge/relay/session"
	"websocketbridge/relay/token"
	"websocketbridge/signaler/fake"
	"websocketbridge/test/emulator"
)

// The code in the README is that between these markers.

func embed(ctx context.Context, source deviceagent.SignalSource) error {
	// snippet agent
	targets, err := deviceagent.ParseTargets([]string{"ssh=tcp:127.0.0.1:22", "echo"})
	if err != nil {
		return err
	}
	agent, err := deviceagent.New(deviceagent.Config{
		DeviceID:   "pump-7",
		Source:     source,
		RelayHosts: []string{"127.0.0.1", "relay.example.com"},
		Targets:    targets,
	})
	if err != nil {
		return err
	}
	return agent.Run(ctx) // until ctx ends
	// end
}

func ask(ctx context.Context, url, key string) (string, error) {
	// snippet client
	sess, err := client.Dial(ctx,
		client.Config{URL: url, APIKey: key},
		client.Request{Device: "pump-7", Targets: []string{"echo"}})
	if err != nil {
		return "", err // a *client.Error says why: Code, Detail, Hint, BridgeID
	}
	defer sess.Close()
	stream, err := sess.Open(ctx, "echo")
	if err != nil {
		return "", err // a *session.OpenError has the device's words
	}
	defer stream.Close()
	if _, err := io.WriteString(stream, "hello"); err != nil {
		return "", err
	}
	if err := stream.CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(stream)
	return string(answer), err
	// end
}

func emulated(ctx context.Context, use func(connectionString, addr string, roots *x509.CertPool) error) error {
	// snippet emulator
	hub, err := emulator.New(emulator.Config{Devices: []emulator.Device{{ID: "pump-7"}}})
	if err != nil {
		return err
	}
	go hub.Run(ctx)
	text, err := hub.DeviceConnectionString("pump-7") // HostName=localhost;DeviceId=pump-7;SharedAccessKey=…
	if err != nil {
		return err
	}
	return use(text, hub.MQTTAddr(), hub.RootCAs())
	// end
}

func TestSnippetEmulator(t *testing.T) {
	err := emulated(t.Context(), func(text, addr string, roots *x509.CertPool) error {
		cfg, err := hub.FromConnectionString(text)
		if err != nil {
			return err
		}
		listens, stop := make(chan struct{}), errors.New("enough")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cfg.Addr, cfg.TLS = addr, &tls.Config{RootCAs: roots}
		cfg.Logger = slog.New(slog.NewTextHandler(writer(func(b []byte) {
			if strings.Contains(string(b), "listening for signals") {
				close(listens)
			}
		}), nil))
		source, err := hub.New(cfg)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- source.Run(ctx, nil) }()
		select {
		case <-listens:
			cancel()
		case <-ctx.Done():
			err = stop
		}
		return errors.Join(err, <-done)
	})
	if err != nil {
		t.Error(err)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// What the comments in the snippets say.
var (
	_ error = (*client.Error)(nil)
	_ error = (*session.OpenError)(nil)
	_ interface {
		net.Conn
		CloseWrite() error
	} = (*session.Stream)(nil)
)

func TestSnippetsAreTheREADME(t *testing.T) {
	code := map[string]string{}
	for _, m := range regexp.MustCompile(`(?s)\n\t// snippet (\w+)\n(.*?)\n\t// end\n`).FindAllStringSubmatch(text(t, "snippets_test.go"), -1) {
		code[m[1]] = strings.ReplaceAll("\n"+m[2], "\n\t", "\n")[1:] + "\n"
	}
	for _, b := range blocks(t) {
		if b.how != "snippet" {
			continue
		}
		want, ok := code[b.args[0]]
		if !ok || b.text != want {
			t.Errorf("%v: differs from snippet %s, which is\n%s", b, b.args[0], want)
		}
		delete(code, b.args[0])
	}
	for name := range code {
		t.Errorf("snippet %s is not in the README", name)
	}
}

// Both of them work, with each other.
func TestSnippetsRun(t *testing.T) {
	key := auth.NewAPIKey()
	hash, err := auth.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.ParseKeys("readme " + hash)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := token.NewRing(token.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hub := fake.New(fake.Config{})
	url := "ws://" + ln.Addr().String()
	node, err := relay.New(relay.Config{PublicURL: url, Signaler: hub, Keys: ring, Auth: keys, Drain: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- node.Run(ctx, relay.Listeners{Public: ln}) }()
	go func() { ended <- embed(ctx, hub.Source("pump-7")) }()
	if err := hub.WaitOnline(ctx, "pump-7"); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(ctx, url, key); got != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	var refused *client.Error
	if _, err := ask(ctx, url, "wrong"); !errors.As(err, &refused) || refused.Status != 401 {
		t.Errorf("with a wrong key: %v", err)
	}
	cancel()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
