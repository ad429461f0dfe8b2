//go:build clients

package readme_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommandsWithSSH is TestCommands with the blocks that need OpenSSH: the
// README's ~/.ssh/config, and a server as this user.
func TestCommandsWithSSH(t *testing.T) {
	m := newMachine(t)
	find := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%s is missing: install openssh-client and openssh-server", name)
		}
		return path
	}
	sshd, keygen := find("sshd"), find("ssh-keygen")
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(m.home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if os.Getuid() == 0 { // what an init script does before it starts sshd
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hostKey, userKey := filepath.Join(m.home, "host_key"), filepath.Join(m.home, "user_key")
	for _, key := range []string{hostKey, userKey} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	addr := freePort(t, "127.0.0.1:0")
	_, port, _ := strings.Cut(addr, ":")
	config := write("sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nAuthorizedKeysFile %s.pub\n"+
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n", port, hostKey, userKey), 0o600)
	m.start(block{args: []string{"Server listening on 127.0.0.1"}}, "exec "+sshd+" -D -e -f "+config)

	// OpenSSH takes the home directory from the user database, not from HOME.
	mine := write(".ssh/config", "", 0o600)
	options := fmt.Sprintf("-F %s -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityFile=%s -o GlobalKnownHostsFile=none -o UserKnownHostsFile=%s", mine, userKey,
		write("known_hosts", "pump-7 "+string(public), 0o600))
	shim := write("bin/ssh", "#!/bin/sh\nexec "+find("ssh")+" "+options+" \"$@\"\n", 0o700)
	write("bin/scp", "#!/bin/sh\nexec "+find("scp")+" -S "+shim+" \"$@\"\n", 0o700)

	all := blocks(t)
	met := 0
	for i, b := range all {
		all[i].text = strings.ReplaceAll(b.text, "ssh=tcp:127.0.0.1:22 ", "ssh=tcp:"+addr+" ")
		if b.stop { // what follows is TestCommands' alone
			all = all[:i]
			break
		}
		if b.how == "clients" {
			met++
			if !strings.Contains(b.text, "scp") {
				all[i].args = []string{"I am on the device"}
			}
		}
	}
	if met == 0 {
		t.Fatal("no block needs ssh")
	}
	m.follow(all, func(b block) { write(".ssh/config", b.text, 0o600) })
	if _, err := os.Stat(filepath.Join(m.home, "bridge-demo", "hostname")); err != nil {
		t.Errorf("scp: %v", err)
	}
}
