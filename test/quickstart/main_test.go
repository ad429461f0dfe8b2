package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"websocketbridge/signaler"
	"websocketbridge/signaler/fake"
)

func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART_MAIN") != "" { // startProcess below
		main()
		return
	}
	os.Exit(m.Run())
}

// The hops in the order in which they must be told.
var (
	hopsOfOne = []string{
		"requester  asks: GET /bridge/connect?deviceId=pump-7",
		"relay      hands the hub a signal for pump-7",
		"device     gets the signal from the hub",
		"device     dials the relay back: GET /bridge/accept",
		"requester  gets its 101: bridge ",
		"requester  asks for http://127.0.0.1:",
		"device     connects its target web, 127.0.0.1:",
		"requester  gets 200 OK, ",
	}
	hopsOfMany = []string{
		"requester  asks: GET /bridge/connect?deviceId=pump-7",
		"front      gives it to node 1\n",
		"node 1     owns the bridge, and hands the hub a signal for pump-7",
		"device     gets the signal from the hub",
		"device     dials the relay back: GET /bridge/accept",
		"front      gives it to node 2\n",
		"node 2     reads in the token that node 1 owns the bridge, and passes it on to its node port, 127.0.0.1:",
		"node 1     has the other node's proof",
		"node 1     joins the device with the requester",
		"requester  gets its 101: bridge ",
		"requester  asks for http://127.0.0.1:",
		"device     connects its target web, 127.0.0.1:",
		"requester  gets 200 OK, ",
	}
)

var aMoment = regexp.MustCompile(`(?m)^ +(\d+\.\d) ms  (.*)$`)

// checkHops wants these in out, and no others.
func checkHops(t *testing.T, out string, hops []string) {
	t.Helper()
	told := aMoment.FindAllStringSubmatch(out, -1)
	if len(told) != len(hops) {
		t.Errorf("%d hops are told, want %d:\n%s", len(told), len(hops), out)
		return
	}
	last := -1.0
	for i, m := range told {
		if !strings.HasPrefix(m[2]+"\n", hops[i]) {
			t.Errorf("hop %d: got %q, want %q", i, m[2], hops[i])
		}
		var ms float64
		if _, err := fmt.Sscan(m[1], &ms); err != nil || ms < last {
			t.Errorf("%s ms after %.1f ms", m[1], last)
		}
		last = ms
	}
}

func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		args    []string
		hops    []string
		picture []string
	}{
		{"as it is", nil, hopsOfMany, []string{"a relay of 2 nodes", "├──► node 1 ──┬── hub ──┘\n", "└──► node 2 ──┘\n"}},
		{"one node", []string{"-nodes", "1"}, hopsOfOne, []string{"through a relay. The", "requester ──► relay ◄── device"}},
		{"three nodes", []string{"-nodes=3"}, hopsOfMany,
			[]string{"a relay of 3 nodes", "├──► node 1 ──┬── hub ──┘\n", "├──► node 2 ──┤\n", "└──► node 3 ──┘\n"}},
		{"nine nodes", []string{"-nodes", "9"}, hopsOfMany, []string{"a relay of 9 nodes", "├──► node 8 ──┤\n", "└──► node 9 ──┘\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) { testOnce(t, tt.args, tt.hops, tt.picture) })
	}
}

func testOnce(t *testing.T, args, hops, picture []string) {
	var out, log bytes.Buffer
	began := time.Now()
	if err := run(context.Background(), append(args, "-once", "-v"), &out, &log); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	checkHops(t, out.String(), hops)
	for _, want := range picture {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "curl") {
		t.Error("-once tells what to try, and is not there any more")
	}
	for _, want := range []string{`msg="bridge open"`, "part=relay", "part=agent"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s with -v:\n%s", want, &log)
		}
	}
	if strings.Contains(log.String(), "bridgeToken") {
		t.Error("a token is in the log")
	}
	for _, addr := range regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(out.String(), -1) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s is still open", addr)
		}
	}
}

// What it tells is what happens: a device that reaches the owner is not passed on.
func TestTurns(t *testing.T) {
	first := func(backends []string) []string { return backends[:1] }
	swapped := func(backends []string) []string { return []string{backends[1], backends[0]} }
	atOwner := append(append(slices.Clone(hopsOfMany[:5]), hopsOfMany[1]), hopsOfMany[8:]...)
	var otherWay []string
	for _, hop := range hopsOfMany {
		otherWay = append(otherWay, strings.NewReplacer("node 1", "node 2", "node 2", "node 1").Replace(hop))
	}
	for name, tt := range map[string]struct {
		turns func([]string) []string
		hops  []string
	}{
		"all reach node 1":      {first, atOwner},
		"the requester, node 2": {swapped, otherWay},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			d := demo{out: &out, once: true, log: slog.New(slog.DiscardHandler), nodes: 2, turns: tt.turns}
			if err := d.run(context.Background()); err != nil {
				t.Fatal(err)
			}
			checkHops(t, out.String(), tt.hops)
		})
	}
}

func TestHub(t *testing.T) {
	const signal = "with the address to dial back"
	for _, tt := range []struct {
		args []string
		want string
		hops []string
	}{
		{[]string{"-hub"}, signal + ", as a cloud-to-device message by AMQP\n", hopsOfMany},
		{[]string{"-hub=method"}, signal + ", as a direct method by HTTPS\n", hopsOfMany},
		{[]string{"-hub=false"}, signal + "\n", hopsOfMany},
		{[]string{"-hub", "-nodes=1"}, signal + ", as a cloud-to-device message by AMQP\n", hopsOfOne},
		{[]string{"-hub=method", "-nodes=3"}, signal + ", as a direct method by HTTPS\n", hopsOfMany},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var out, log bytes.Buffer
			if err := run(context.Background(), append(tt.args, "-once", "-v"), &out, &log); err != nil {
				t.Fatalf("%v\n%s", err, &log)
			}
			checkHops(t, out.String(), tt.hops)
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("no %q in\n%s", tt.want, &out)
			}
			for _, secret := range []string{"SharedAccess", "bridgeToken"} {
				if strings.Contains(out.String()+log.String(), secret) {
					t.Errorf("%s is printed", secret)
				}
			}
		})
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-nope"}, {"-hub=amqp"}, {"-once", "more"}, {"-once=perhaps"}, {"-nodes=0"}, {"-nodes", "10"}, {"-nodes=-1"}, {"-nodes=two"}, {"-nodes"}} {
		var out bytes.Buffer
		err := run(context.Background(), args, &out, &out)
		if err == nil || !strings.Contains(err.Error(), "go run ./test/quickstart -once") || out.Len() > 0 {
			t.Errorf("%v: %v, %q", args, err, &out)
		}
	}
	var out bytes.Buffer
	if err := run(context.Background(), []string{"-h"}, &out, io.Discard); !errors.Is(err, flag.ErrHelp) || out.String() != usage {
		t.Errorf("-h: %v, %q", err, &out)
	}
}

// Whatever part breaks, it says which and does not pass for a success.
func TestBroken(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		demo       demo
	}{
		{"the signal is lost", "did not dial back", demo{faults: fake.Faults{LoseAll: true}, dialBack: time.Second}},
		{"the hub is away", "hub cannot be reached", demo{faults: fake.Faults{Error: fake.Unavailable}}},
		{"the device refuses", "busy: not now", demo{faults: fake.Faults{Refuse: &signaler.Refusal{Code: "busy", Message: "not now"}}}},
		{"another page", "the page is not the device's: 200 OK", demo{page: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "It works!") }}},
		{"an error page", "the page is not the device's: 500", demo{page: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "device pump-7", 500) }}},
		{"a page that breaks off", "EOF", demo{page: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(200)
			panic(http.ErrAbortHandler)
		}}},
		{"a relay that cannot be", "DialBack", demo{dialBack: time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			d := tt.demo
			d.out, d.once, d.log, d.nodes = &out, true, slog.New(slog.DiscardHandler), 2
			err := d.run(context.Background())
			if err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() > 0 {
				t.Errorf("got %v, want %q; printed %q", err, tt.want, &out)
			}
		})
	}
}

// Ctrl-C at any time is a clean end, also before the page.
func TestCancelled(t *testing.T) {
	d := demo{out: io.Discard, log: slog.New(slog.DiscardHandler), nodes: 2, faults: fake.Faults{Hang: true}}
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error)
	go func() { ended <- d.run(ctx) }()
	cancel(errors.New("interrupt signal received")) // the cause that signal.NotifyContext gives
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
