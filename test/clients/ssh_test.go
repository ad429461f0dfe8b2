//go:build clients

package clients

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// openSSH is a server on "the device" and what its user has.
type openSSH struct {
	*rig
	user   string
	config string // of the client, without any way to the server
}

// newSSH starts sshd as this user, and a rig whose agent has it as target ssh.
func newSSH(t *testing.T) *openSSH {
	t.Helper()
	sshd := tool(t, "sshd", "openssh-server")
	for _, name := range []string{"ssh", "scp", "sftp", "ssh-keygen"} {
		tool(t, name, "openssh-client")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" { // what an init script does before it starts sshd
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeAddr(t)
	s := &openSSH{rig: newRig(t, []string{"ssh=tcp:" + addr}), user: me.Username}
	hostKey, userKey := filepath.Join(s.dir, "host_key"), filepath.Join(s.dir, "user_key")
	for _, key := range []string{hostKey, userKey} {
		must(t, environ(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	server := start(t, "sshd", environ(), sshd, "-D", "-e", "-f", s.write("sshd_config", fmt.Sprintf(`
ListenAddress 127.0.0.1
Port %s
HostKey %s
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
Subsystem sftp internal-sftp
`, portOf(t, addr), hostKey, userKey)))
	server.SaysOn(server.Err, "Server listening on 127.0.0.1")
	public, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s.config = s.write("ssh_config", fmt.Sprintf(`
Host *
  HostKeyAlias %s
  UserKnownHostsFile %s
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  IdentityFile %s
  IdentitiesOnly yes
  BatchMode yes
`, deviceID, s.write("known_hosts", deviceID+" "+string(public)), userKey))
	return s
}

// proxy is the option that the README tells users to set.
const proxy = "ProxyCommand=bridge stdio %n ssh"

func (s *openSSH) options() []string { return []string{"-F", s.config, "-o", proxy} }

func (s *openSSH) at(path string) string { return s.user + "@" + deviceID + ":" + path }

func TestSSH(t *testing.T) {
	s := newSSH(t)
	t.Run("command", func(t *testing.T) {
		in := random(300_000)
		got := run(t, s.env(), in, "ssh", append(s.options(), s.user+"@"+deviceID, "cat; echo from the device >&2; exit 42")...)
		if got.exit != 42 || got.stdout != string(in) || !strings.Contains(got.stderr, "from the device") {
			t.Errorf("exit code %d, %d bytes on standard output, %q on standard error; want 42, the %d bytes of the input, words of the device",
				got.exit, len(got.stdout), got.stderr, len(in))
		}
	})
	t.Run("terminal", func(t *testing.T) {
		got := run(t, s.env(), nil, "ssh", append(s.options(), "-tt", s.user+"@"+deviceID, "tty")...)
		if got.exit != 0 || !strings.HasPrefix(got.stdout, "/dev/") {
			t.Errorf("tty: exit code %d, %q, %q", got.exit, got.stdout, got.stderr)
		}
	})
	t.Run("target that is not allowed", func(t *testing.T) {
		got := run(t, s.env(), nil, "ssh", "-F", s.config, "-o", "ProxyCommand=bridge stdio %n telnet", deviceID, "true")
		if got.exit != 255 || !strings.Contains(got.stderr, `target "telnet" is not on this device's list`) {
			t.Errorf("exit code %d, %q; want 255 and the device's words", got.exit, got.stderr)
		}
	})
}

func TestSCP(t *testing.T) {
	s := newSSH(t)
	data := random(64 << 20)
	local := s.write("64MiB", string(data))
	remote, back := filepath.Join(s.dir, "on the device"), filepath.Join(s.dir, "back")
	must(t, s.env(), "scp", append(s.options(), "-q", local, s.at(remote))...)
	sameFile(t, remote, data)
	must(t, s.env(), "scp", append(s.options(), "-q", s.at(remote), back)...)
	sameFile(t, back, data)
	t.Run("old protocol", func(t *testing.T) {
		data := data[:1<<20]
		local, remote, back := s.write("1MiB", string(data)), filepath.Join(s.dir, "old"), filepath.Join(s.dir, "oldback")
		must(t, s.env(), "scp", append(s.options(), "-q", "-O", local, s.at(remote))...)
		sameFile(t, remote, data)
		must(t, s.env(), "scp", append(s.options(), "-q", "-O", s.at(remote), back)...)
		sameFile(t, back, data)
	})
}

func TestSFTP(t *testing.T) {
	s := newSSH(t)
	data := random(4 << 20)
	local, remote, back := s.write("local", string(data)), filepath.Join(s.dir, "remote"), filepath.Join(s.dir, "back")
	batch := s.write("batch", fmt.Sprintf("mkdir %[2]s\nput %[1]s %[2]s/file\nrename %[2]s/file %[2]s/renamed\nls %[2]s\nget %[2]s/renamed %[3]s\n", local, remote, back))
	got := must(t, s.env(), "sftp", append(s.options(), "-b", batch, s.user+"@"+deviceID)...)
	if !strings.Contains(got.stdout, "renamed") {
		t.Errorf("ls printed %q", got.stdout)
	}
	sameFile(t, filepath.Join(remote, "renamed"), data)
	sameFile(t, back, data)
}

func TestRsync(t *testing.T) {
	tool(t, "rsync", "rsync")
	s := newSSH(t)
	tree, remote, back := filepath.Join(s.dir, "tree"), filepath.Join(s.dir, "remote"), filepath.Join(s.dir, "back")
	for i := range 200 {
		path := filepath.Join(tree, fmt.Sprint("dir", i%7), fmt.Sprint("file", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, random(i*i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	big := random(8 << 20)
	if err := os.WriteFile(filepath.Join(tree, "big"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	shell := fmt.Sprintf("ssh -F %s -o '%s'", s.config, proxy)
	rsync := func(from, to string) {
		t.Helper()
		must(t, s.env(), "rsync", "-a", "--checksum", "--delete", "-e", shell, from, to)
	}
	rsync(tree+"/", s.at(remote)+"/")
	sameTree(t, tree, remote)
	// A second run sends differences, with rsync's own talk both ways.
	copy(big[4<<20:], "changed")
	if err := os.WriteFile(filepath.Join(tree, "big"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(tree, "dir3", "file3")); err != nil {
		t.Fatal(err)
	}
	rsync(tree+"/", s.at(remote)+"/")
	sameTree(t, tree, remote)
	rsync(s.at(remote)+"/", back+"/")
	sameTree(t, tree, back)
}

func TestSSHThroughTunnel(t *testing.T) {
	s := newSSH(t)
	port := portOf(t, s.tunnel("ssh")[0])
	data := random(8 << 20)
	var wg sync.WaitGroup
	for range 5 { // at once, on one bridge
		wg.Go(func() {
			got := run(t, s.env(), data, "ssh", "-F", s.config, "-p", port, s.user+"@127.0.0.1", "cat; exit 7")
			if got.exit != 7 || got.stdout != string(data) {
				t.Errorf("exit code %d, %d bytes back of %d; %s", got.exit, len(got.stdout), len(data), got.stderr)
			}
		})
	}
	wg.Wait()
	if n := s.logged("signal"); n != 1 {
		t.Errorf("the device was signalled %d times, want once", n)
	}
}

func sameFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes that differ from the %d sent", path, len(got), len(want))
	}
}

func sameTree(t *testing.T, a, b string) {
	t.Helper()
	in := func(root string) map[string]string {
		files := map[string]string{}
		err := fs.WalkDir(os.DirFS(root), ".", func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			content, err := os.ReadFile(filepath.Join(root, path))
			files[path] = string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	x, y := in(a), in(b)
	if len(x) != len(y) {
		t.Fatalf("%s has %d files, %s %d", a, len(x), b, len(y))
	}
	for path, content := range x {
		if y[path] != content {
			t.Fatalf("%s differs", path)
		}
	}
}
