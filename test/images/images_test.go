//go:build images && linux

package images_test

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"websocketbridge/test/process/processtest"
)

// Each image is one program that says its version, certificates, and what a user needs; nothing in
// it could be run otherwise or written to.
func TestImages(t *testing.T) {
	for _, name := range targets {
		t.Run(name, func(t *testing.T) {
			im, err := load(name)
			if err != nil {
				t.Fatal(err)
			}
			var files []string
			var size int64
			err = filepath.WalkDir(im.rootfs, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				size += info.Size()
				owner := info.Sys().(*syscall.Stat_t)
				if rel, _ := filepath.Rel(im.rootfs, path); owner.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
					t.Errorf("/%s belongs to %d, mode %v", rel, owner.Uid, info.Mode())
				} else {
					files = append(files, "/"+rel)
				}
				return nil
			})
			want := []string{"/" + name, "/etc/group", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt"}
			slices.Sort(want)
			slices.Sort(files)
			if err != nil || !slices.Equal(files, want) {
				t.Errorf("%v; it holds %q, not %q", err, files, want)
			}
			if im.config.User != "65532:65532" || !slices.Equal(im.config.Entrypoint, []string{"/" + name}) {
				t.Errorf("user %q, entrypoint %q", im.config.User, im.config.Entrypoint)
			}
			c := newContainer(t, "version-"+name, im, network+"250")
			c.args, c.env, c.readOnly, c.noNewPrivileges = []string{"/" + name, "--version"}, im.config.Env, true, true
			c.start()
			c.exits(0)
			if said := c.said(); !strings.Contains(said, version) {
				t.Errorf("--version: %q", said)
			}
			t.Logf("%.1f MB", float64(size)/1e6)
		})
	}
}

// The same sources make the same bytes, wherever and whenever that is.
func TestReproducible(t *testing.T) {
	sums := func(name string) string {
		text, err := output("sh", "-c", `cd "$1" && find . -type f -exec sha256sum {} + | sort -k 2 && find . -mindepth 1 -printf '%p %m %U %G %T@\n' | sort`, "sh", filepath.Join(store, name, "rootfs"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if one, two := sums("relay"), sums("relay-again"); one != two {
		t.Errorf("one build has\n%sand the other\n%s", one, two)
	}
}

// The compose file as it is, but for one more target of the agent: sshd on this machine. What
// curl shows is there, and an ssh session works: ssh, tunnel, Caddy, a node or two, agent, sshd.
func TestCompose(t *testing.T) {
	c := readCompose(t, filepath.Join(root, "infra/compose.yaml"))
	ssh := newSSH(t)
	add := func(to *string, more string) { *to += more }
	targets := c.Services["agent"].Environment["AGENT_TARGETS"]
	add(&targets, ",ssh=tcp:"+ssh.addr)
	c.Services["agent"].Environment["AGENT_TARGETS"] = targets
	c.Services["tunnel"].Command = append(c.Services["tunnel"].Command, "0.0.0.0:2222:ssh")

	p := up(t, c)
	tunnel := p.containers["tunnel"]
	_, _, published := cutPort(t, c.Services["tunnel"].Ports[0])
	url := "http://" + net.JoinHostPort(tunnel.addr, published)
	var page string
	until(t, url+" answers", func() bool {
		tunnel.mustRun()
		res, err := http.Get(url)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		page = string(b)
		return err == nil && res.StatusCode == http.StatusOK
	})
	if page != "hello from the device's network\n" {
		t.Errorf("it says %q", page)
	}
	http.DefaultClient.CloseIdleConnections()

	out, err := ssh.run(tunnel.addr, "2222", "cat; echo and the device", "typed here\n")
	if err != nil || out != "typed here\nand the device\n" {
		t.Errorf("ssh: %v, %q", err, out)
	}

	// Each container is as confined as its service says, and as well as its image asks.
	for name, s := range c.Services {
		on := p.containers[name]
		if !s.ReadOnly || !on.noNewPrivileges {
			t.Errorf("%s may write to its root file system, or get privileges", name)
		}
		im, err := load(imageOf(s))
		if err != nil {
			t.Fatal(err)
		}
		if check := im.config.Healthcheck; check != nil && check.Test[0] == "CMD" && !s.Healthcheck.Disable {
			if err := on.exec(check.Test[1:]...); err != nil {
				t.Errorf("healthcheck of the image: %v", err)
			}
		}
	}
	for _, name := range []string{"relay", "emulator", "deviceagent"} {
		if im, err := load(name); err != nil || im.config.Healthcheck == nil {
			t.Errorf("%s has no healthcheck: %v", name, err)
		}
	}

	// Told to stop, everything does, and in the time that it is given.
	for _, name := range []string{"tunnel", "agent", "relay-1", "relay-2", "hub"} {
		on := p.containers[name]
		if out, err := on.runc("kill", on.id, "TERM").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for _, name := range []string{"tunnel", "agent", "relay-1", "relay-2", "hub"} {
		p.containers[name].exits(0)
	}
	for name, on := range p.containers {
		for _, secret := range p.secrets() {
			if strings.Contains(on.said(), secret) {
				t.Errorf("a key is in what %s said", name)
			}
		}
	}
}

// secrets are the keys that were made for this run.
func (p *project) secrets() (all []string) {
	p.t.Helper()
	for _, name := range []string{"volume-keys/me.key", "volume-keys/token-keys", "volume-keys/signal-key"} {
		b, err := os.ReadFile(p.at(name))
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, strings.TrimSpace(string(b)))
	}
	return all
}

func cutPort(t *testing.T, spec string) (addr, host, inside string) {
	t.Helper()
	parts := strings.Split(spec, ":")
	if len(parts) != 3 || parts[0] != "127.0.0.1" {
		t.Fatalf("port %q is not 127.0.0.1:PORT:PORT", spec)
	}
	return parts[0], parts[1], parts[2]
}

// openSSH is a server on this machine, and what its user has.
type openSSH struct {
	addr   string
	config string
	user   string
}

func newSSH(t *testing.T) *openSSH {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) string {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	for _, key := range []string{"host_key", "user_key"} {
		if err := command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at(key)); err != nil {
			t.Fatal(err)
		}
	}
	sshd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", write("sshd_config", fmt.Sprintf(`
ListenAddress %s
Port 22
HostKey %s
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
`, hostAddr, at("host_key"), at("user_key"))))
	processtest.Start(t, sshd, processtest.Config{Patience: patience}).Says("Server listening on " + hostAddr)
	s := &openSSH{addr: net.JoinHostPort(hostAddr, "22")}
	public, err := os.ReadFile(at("host_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.user = me.Username
	s.config = write("ssh_config", fmt.Sprintf(`
Host *
  HostKeyAlias device
  UserKnownHostsFile %s
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  IdentityFile %s
  IdentitiesOnly yes
  BatchMode yes
`, write("known_hosts", "device "+string(public)), at("user_key")))
	return s
}

// run is ssh with a command to the address of a tunnel.
func (s *openSSH) run(host, port, command, in string) (string, error) {
	cmd := exec.Command("ssh", "-F", s.config, "-p", port, s.user+"@"+host, command)
	cmd.Stdin = strings.NewReader(in)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errOut.String())
	}
	return string(out), err
}
