//go:build clients

package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listenOnDevice is a service that only "the device" can reach.
func listenOnDevice(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// part is what the web server has under /part/N.
func part(n int) string {
	return fmt.Sprintf("part %d\n%s", n, strings.Repeat(fmt.Sprintf("%04d", n), n*n*8))
}

func serveParts(t *testing.T, ln net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /part/{n}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscan(r.PathValue("n"), &n)
		io.WriteString(w, part(n))
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"Version":"28.0"}`)
	})
	srv := &http.Server{Handler: mux}
	t.Cleanup(func() { srv.Close() })
	go srv.Serve(ln)
}

func TestCurl(t *testing.T) {
	curl := tool(t, "curl", "curl")
	ln := listenOnDevice(t, "tcp", "127.0.0.1:0")
	serveParts(t, ln)
	r := newRig(t, []string{"web=tcp:" + ln.Addr().String()})
	local := r.tunnel("web")[0]
	const parts = 60
	var config strings.Builder
	for n := range parts {
		fmt.Fprintf(&config, "url = http://%s/part/%d\noutput = %s\n", local, n, filepath.Join(r.dir, fmt.Sprint("part", n)))
	}
	// Immediate: a connection for each request instead of waiting for one to reuse.
	must(t, r.env(), curl, "--silent", "--show-error", "--fail-early", "--fail", "--parallel", "--parallel-immediate",
		"--parallel-max", fmt.Sprint(parts), "--config", r.write("curl", config.String()))
	for n := range parts {
		sameFile(t, filepath.Join(r.dir, fmt.Sprint("part", n)), []byte(part(n)))
	}
	if signals, bridges := r.logged("signal"), r.logged("bridge open"); signals != 1 || bridges != 1 {
		t.Errorf("%d requests cost %d signals and %d bridges, want one of each", parts, signals, bridges)
	}
}

// TestUnixSocket reaches a service as Docker's.
func TestUnixSocket(t *testing.T) {
	curl := tool(t, "curl", "curl")
	dir, err := os.MkdirTemp("", "sock") // t.TempDir may be too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "docker.sock")
	serveParts(t, listenOnDevice(t, "unix", socket))
	there := must(t, environ(), curl, "--silent", "--show-error", "--fail", "--unix-socket", socket, "http://docker/version")
	r := newRig(t, []string{"docker=unix:" + socket})
	here := must(t, r.env(), curl, "--silent", "--show-error", "--fail", "http://"+r.tunnel("docker")[0]+"/version")
	if here.stdout != there.stdout || here.stdout != `{"Version":"28.0"}` {
		t.Errorf("through the tunnel: %q; on the device: %q", here.stdout, there.stdout)
	}
}

func TestIperf3(t *testing.T) {
	iperf := tool(t, "iperf3", "iperf3")
	addr := freeAddr(t)
	server := start(t, "iperf3 -s", environ(), iperf, "-s", "-B", "127.0.0.1", "-p", portOf(t, addr), "--forceflush")
	r := newRig(t, []string{"iperf=tcp:" + addr})
	port := portOf(t, r.tunnel("iperf")[0])
	for i, c := range []struct {
		name string
		args []string
	}{{"to device", nil}, {"to requester", []string{"-R"}}, {"both ways on 4 connections", []string{"--bidir", "-P", "2"}}} {
		t.Run(c.name, func(t *testing.T) {
			// One test at a time: it says when it has cleared up after the last one.
			server.SaysOn(server.Out, fmt.Sprintf("(test #%d)", i+1))
			got := must(t, r.env(), iperf, append([]string{"-c", "127.0.0.1", "-p", port, "-t", "2", "-J"}, c.args...)...)
			var report struct {
				End struct {
					Received struct {
						Bytes         int64   `json:"bytes"`
						BitsPerSecond float64 `json:"bits_per_second"`
					} `json:"sum_received"`
				} `json:"end"`
				Error string `json:"error"`
			}
			if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
				t.Fatal(err)
			}
			if rec := report.End.Received; report.Error != "" || rec.Bytes == 0 || rec.BitsPerSecond <= 0 {
				t.Errorf("iperf3 received %d bytes: %q", rec.Bytes, report.Error)
			}
			t.Logf("%.0f Mbit/s (race detector: %v)", report.End.Received.BitsPerSecond/1e6, race)
		})
	}
	if n := r.logged("signal"); n != 1 {
		t.Errorf("the device was signalled %d times, want once", n)
	}
}

// TestHalfClose asks a server that answers only after the end of the question.
func TestHalfClose(t *testing.T) {
	nc := tool(t, "nc", "netcat-openbsd")
	ln := listenOnDevice(t, "tcp", "127.0.0.1:0")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				h := sha256.New()
				n, err := io.Copy(h, c)
				fmt.Fprintf(c, "%d bytes, %x, %v\n", n, h.Sum(nil), err)
				c.Write(bytes.Repeat([]byte("x"), 1<<20))
			}()
		}
	}()
	r := newRig(t, []string{"digest=tcp:" + ln.Addr().String()})
	host, port, err := net.SplitHostPort(r.tunnel("digest")[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, question := range [][]byte{[]byte("question"), nil, random(5 << 20)} {
		want := fmt.Sprintf("%d bytes, %x, <nil>\n%s", len(question), sha256.Sum256(question), strings.Repeat("x", 1<<20))
		for _, c := range []struct {
			name string
			args []string
		}{
			{"nc -N", []string{nc, "-N", host, port}},
			{"bridge stdio", []string{filepath.Join(bin, "bridge"), "stdio", deviceID, "digest"}},
		} {
			t.Run(fmt.Sprintf("%s/%d", c.name, len(question)), func(t *testing.T) {
				got := run(t, r.env(), question, c.args[0], c.args[1:]...)
				if got.exit != 0 || got.stdout != want {
					t.Errorf("exit code %d, answer %.100q of %d bytes, want %.100q of %d; %s", got.exit, got.stdout, len(got.stdout), want, len(want), got.stderr)
				}
			})
		}
	}
}
