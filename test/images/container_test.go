//go:build images && linux

package images_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// container is one of runc's.
type container struct {
	t    *testing.T
	name string
	id   string
	addr string
	dir  string // the bundle

	rootfs          string
	user            string // UID:GID; empty: the image's
	args, env       []string
	cwd             string
	readOnly        bool
	noNewPrivileges bool
	mounts          []map[string]any

	log string // file
	pid int    // of its first process

	status *int // how it ended, once that is known
}

// newContainer is one of an image that is not started.
func newContainer(t *testing.T, name string, im image, addr string) *container {
	t.Helper()
	c := &container{
		t: t, name: name, addr: addr, dir: t.TempDir(), id: fmt.Sprintf("images-%d-%s", os.Getpid(), name),
		user: im.config.User, cwd: im.config.WorkingDir,
	}
	c.log = filepath.Join(c.dir, "log")
	// A copy, as runc makes the mount points in it. Nothing of it is written to by the container.
	c.rootfs = filepath.Join(c.dir, "rootfs")
	if err := command("cp", "-a", im.rootfs, c.rootfs); err != nil {
		t.Fatal(err)
	}
	if c.cwd == "" {
		c.cwd = "/"
	}
	c.mounts = []map[string]any{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=64k"}},
	}
	return c
}

func (c *container) mount(source, target, options string) {
	all := []string{"bind"}
	if options != "" {
		all = append(all, options)
	}
	c.mounts = append(c.mounts, map[string]any{"destination": target, "type": "bind", "source": source, "options": all})
}

func (c *container) tmpfs(target, options string) {
	c.mounts = append(c.mounts, map[string]any{"destination": target, "type": "tmpfs", "source": "tmpfs", "options": strings.Split(options, ",")})
}

// runc keeps its state in a folder of the test's own.
func (c *container) runc(args ...string) *exec.Cmd {
	return exec.Command("runc", append([]string{"--root", filepath.Join(store, "runc")}, args...)...)
}

// start makes the container, plugs it into the network and lets it begin.
func (c *container) start() {
	t := c.t
	t.Helper()
	uid, gid, ok := strings.Cut(c.user, ":")
	u, err := strconv.Atoi(uid)
	g, gerr := strconv.Atoi(gid)
	if !ok || err != nil || gerr != nil || u == 0 {
		t.Fatalf("%s runs as %q, which is not two numbers, or is root", c.name, c.user)
	}
	spec := map[string]any{
		"ociVersion": "1.0.2",
		"hostname":   c.name,
		"root":       map[string]any{"path": c.rootfs, "readonly": c.readOnly},
		"mounts":     c.mounts,
		"process": map[string]any{
			"user": map[string]any{"uid": u, "gid": g}, "args": c.args, "env": c.env, "cwd": c.cwd,
			"noNewPrivileges": c.noNewPrivileges, "capabilities": map[string]any{},
		},
		"linux": map[string]any{
			"namespaces":  []map[string]any{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}},
			"cgroupsPath": "/" + c.id,
		},
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	pidFile := filepath.Join(c.dir, "pid")
	create := c.runc("create", "--bundle", c.dir, "--pid-file", pidFile, c.id)
	create.Stdout, create.Stderr = log, log
	if err := create.Run(); err != nil {
		t.Fatalf("runc create %s: %v\n%s", c.name, err, c.said())
	}
	t.Cleanup(func() {
		c.runc("delete", "--force", c.id).Run()
		if t.Failed() {
			s := c.said()
			t.Logf("%s said at last:\n%s", c.name, s[max(0, len(s)-3000):])
		}
	})
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if c.pid, err = strconv.Atoi(string(text)); err != nil {
		t.Fatal(err)
	}
	c.plug()
	if out, err := c.runc("start", c.id).CombinedOutput(); err != nil {
		t.Fatalf("runc start %s: %v\n%s%s", c.name, err, out, c.said())
	}
}

// plug gives the container a cable to the switch.
func (c *container) plug() {
	c.t.Helper()
	pid := strconv.Itoa(c.pid)
	outer := "c" + c.addr[len(network):]
	for _, args := range [][]string{
		{"ip", "link", "add", "name", outer, "type", "veth", "peer", "name", "eth0", "netns", pid},
		{"ip", "link", "set", outer, "master", "containers", "up"},
		{"nsenter", "-t", pid, "-n", "ip", "link", "set", "lo", "up"},
		{"nsenter", "-t", pid, "-n", "ip", "addr", "add", c.addr + "/24", "dev", "eth0"},
		{"nsenter", "-t", pid, "-n", "ip", "link", "set", "eth0", "up"},
	} {
		if err := command(args[0], args[1:]...); err != nil {
			c.t.Fatal(err)
		}
	}
}

// exec runs a program in the container, as its user, and returns its failure.
func (c *container) exec(args ...string) error {
	out, err := c.runc(append([]string{"exec", c.id}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", args, c.name, err, out)
	}
	return nil
}

func (c *container) said() string {
	b, _ := os.ReadFile(c.log)
	return string(b)
}

// running says whether its first process is there.
func (c *container) running() bool {
	out, err := c.runc("state", c.id).Output()
	var state struct{ Status string }
	if err != nil || json.Unmarshal(out, &state) != nil {
		c.t.Fatalf("runc state %s: %v", c.name, err)
	}
	return state.Status == "running"
}

func (c *container) mustRun() {
	c.t.Helper()
	if !c.running() {
		c.t.Fatalf("%s ended:\n%s", c.name, c.said())
	}
}

// exits waits for the end and wants this status.
func (c *container) exits(want int) {
	c.t.Helper()
	if c.status == nil {
		// runc has ended, and so this process is the parent.
		var ws syscall.WaitStatus
		until(c.t, c.name+" ends", func() bool {
			pid, err := syscall.Wait4(c.pid, &ws, syscall.WNOHANG, nil)
			if err != nil {
				c.t.Fatalf("wait for %s: %v", c.name, err)
			}
			return pid == c.pid
		})
		code := ws.ExitStatus()
		c.status = &code
	}
	if got := *c.status; got != want {
		c.t.Fatalf("%s ended with %d, not %d:\n%s", c.name, got, want, c.said())
	}
}
