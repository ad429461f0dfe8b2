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
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
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
var hops = []string{
	"requester  asks: GET /bridge/connect?deviceId=pump-7",
	"relay      hands the hub a signal for pump-7",
	"device     gets the signal from the hub",
	"device     dials the relay back: GET /bridge/accept",
	"requester  gets its 101: bridge ",
	"requester  asks for http://127.0.0.1:",
	"device     connects its target web, 127.0.0.1:",
	"requester  gets 200 OK, ",
}

func TestOnce(t *testing.T) {
	var out, log bytes.Buffer
	began := time.Now()
	if err := run(context.Background(), []string{"-once", "-v"}, &out, &log); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	rest := out.String()
	for _, hop := range hops {
		_, after, ok := strings.Cut(rest, hop)
		if !ok {
			t.Errorf("%q is not there, or too early:\n%s", hop, &out)
		}
		rest = after
	}
	last := -1.0
	for _, m := range regexp.MustCompile(`(?m)^ +(\d+\.\d) ms  `).FindAllStringSubmatch(out.String(), -1) {
		var ms float64
		if _, err := fmt.Sscan(m[1], &ms); err != nil || ms < last {
			t.Errorf("%s ms after %.1f ms", m[1], last)
		}
		last = ms
	}
	if last < 0 {
		t.Error("no times")
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

func TestHub(t *testing.T) {
	for arg, want := range map[string]string{
		"-hub":        "with the address to dial back, as a cloud-to-device message by AMQP\n",
		"-hub=method": "with the address to dial back, as a direct method by HTTPS\n",
		"-hub=false":  "with the address to dial back\n",
	} {
		var out, log bytes.Buffer
		if err := run(context.Background(), []string{"-once", arg, "-v"}, &out, &log); err != nil {
			t.Errorf("%s: %v\n%s", arg, err, &log)
			continue
		}
		if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), hops[len(hops)-1]) {
			t.Errorf("%s: no %q in\n%s", arg, want, &out)
		}
		for _, secret := range []string{"SharedAccess", "bridgeToken"} {
			if strings.Contains(out.String()+log.String(), secret) {
				t.Errorf("%s: %s is printed", arg, secret)
			}
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-nope"}, {"-hub=amqp"}, {"-once", "more"}, {"-once=perhaps"}} {
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
			d.out, d.once, d.log = &out, true, slog.New(slog.DiscardHandler)
			err := d.run(context.Background())
			if err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() > 0 {
				t.Errorf("got %v, want %q; printed %q", err, tt.want, &out)
			}
		})
	}
}

// Ctrl-C at any time is a clean end, also before the page.
func TestCancelled(t *testing.T) {
	d := demo{out: io.Discard, log: slog.New(slog.DiscardHandler), faults: fake.Faults{Hang: true}}
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error)
	go func() { ended <- d.run(ctx) }()
	cancel(errors.New("interrupt signal received")) // the cause that signal.NotifyContext gives
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// process is the quickstart as a newcomer starts it.
type process struct {
	cmd *exec.Cmd

	mu   sync.Mutex // guards both
	text strings.Builder
	more chan struct{}
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
	return p.text.Write(b)
}

// wait returns the output once it matches.
func (p *process) wait(t *testing.T, re string) string {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		if p.more == nil {
			p.more = make(chan struct{})
		}
		text, more := p.text.String(), p.more
		p.mu.Unlock()
		if regexp.MustCompile(re).MatchString(text) {
			return text
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("no %q in:\n%s", re, text)
		}
	}
}

// startProcess runs cmd in a process group of its own, which go run needs: it
// does not pass signals on.
func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
		}
	})
	return p
}

// Every command that it prints works as it was pasted, in a shell at the root of
// the repository.
func TestPrintedCommands(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "QUICKSTART_MAIN=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	qs := startProcess(t, cmd)
	text := qs.wait(t, "stdio pump-8 echo\n")
	_, text, _ = strings.Cut(text, "Now try it yourself")
	var exports string
	met := 0
	for _, m := range regexp.MustCompile(`(?m)^  (\w.*)$`).FindAllStringSubmatch(text, -1) {
		line := m[1]
		met++
		script := exports + line
		switch {
		case strings.HasPrefix(line, "export "):
			exports += line + "\n"
			continue
		case strings.HasPrefix(line, "curl "):
			if _, err := exec.LookPath("curl"); err != nil { // a browser does as well
				get(t, strings.TrimPrefix(line, "curl "))
				continue
			}
			check(t, script, 0, "Hello from device pump-7")
		case strings.Contains(line, "tunnel"):
			p := startProcess(t, shell(script))
			out := p.wait(t, `127\.0\.0\.1:\d+ -> web`)
			get(t, "http://"+regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(out))
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT) // Ctrl-C reaches the whole group
			p.cmd.Wait()
		case strings.HasSuffix(line, "stdio pump-7 echo"):
			check(t, script, 0, "hello\n")
		case strings.HasSuffix(line, "stdio pump-7 ssh"):
			check(t, script, 1, `target "ssh" is not on this device's list`) // go run's own exit code
		case strings.HasSuffix(line, "stdio pump-8 echo"):
			check(t, script, 1, `the hub does not know device "pump-8"`)
		default:
			t.Errorf("no test runs %q", line)
		}
	}
	if met != 7 {
		t.Errorf("%d commands are printed, want 7:\n%s", met, text)
	}
	syscall.Kill(qs.cmd.Process.Pid, syscall.SIGINT)
	if err := qs.cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	if out := qs.text.String(); strings.Contains(out, "quickstart:") || strings.Contains(out, "DATA RACE") {
		t.Errorf("at the end:\n%s", out)
	}
}

func shell(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = "../.."
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BRIDGE_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	return cmd
}

func check(t *testing.T, script string, exit int, want string) {
	t.Helper()
	cmd := shell(script)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != exit || !strings.Contains(string(out), want) {
		t.Errorf("%s\nexit code %d, want %d; want %q in:\n%s", script, got, exit, want, out)
	}
}

func get(t *testing.T, url string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), "Hello from device pump-7") {
		t.Errorf("%s: %s %q", url, resp.Status, b)
	}
}
