package service_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"websocketbridge/deviceagent/service"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it); got:\n%s", path, got)
	}
}

const settings = "AGENT_TARGETS=echo\n"

func options(init service.Init) service.Options {
	return service.Options{Init: init, Program: service.DefaultProgram(init), Copy: "testdata/program", Settings: settings, Start: true}
}

func plan(t *testing.T, make func(service.Options) (*service.Plan, error), o service.Options) *service.Plan {
	t.Helper()
	p, err := make(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What each init system gets, and what would be done.
func TestGolden(t *testing.T) {
	for _, init := range service.Inits {
		t.Run(string(init), func(t *testing.T) {
			var text, steps bytes.Buffer
			o := options(init)
			p := plan(t, service.Install, o)
			if err := errors.Join(p.Print(&text), p.Show(&steps)); err != nil {
				t.Fatal(err)
			}
			golden(t, string(init)+".golden", text.String())
			fmt.Fprintln(&steps, "--- uninstall")
			plan(t, service.Uninstall, o).Show(&steps)
			fmt.Fprintln(&steps, "--- uninstall --purge")
			o.Purge = true
			plan(t, service.Uninstall, o).Show(&steps)
			golden(t, string(init)+".steps.golden", steps.String())
			if strings.Contains(text.String(), "AGENT_TARGETS") || strings.Contains(text.String(), "@PROGRAM@") {
				t.Error("a setting is where everybody can read it, or a place of the template is left")
			}
		})
	}
}

func tree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&b, "%s -> %s\n", rel, to)
		case !d.IsDir() || strings.HasSuffix(rel, "deviceagent"):
			fmt.Fprintf(&b, "%s %o\n", rel, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Into a folder, again, and away.
func TestRoot(t *testing.T) {
	for _, init := range []service.Init{service.Systemd, service.OpenRC, service.Procd, service.Launchd} {
		t.Run(string(init), func(t *testing.T) {
			o := options(init)
			o.Root = t.TempDir()
			m := &service.Machine{} // Run is nil: nothing may be run
			var out bytes.Buffer
			if err := plan(t, service.Install, o).Do(m, &out); err != nil {
				t.Fatal(err)
			}
			golden(t, string(init)+".tree.golden", tree(t, o.Root))
			env := filepath.Join(o.Root, "etc/deviceagent/env")
			if b, _ := os.ReadFile(env); string(b) != settings {
				t.Errorf("settings: %q", b)
			}
			// The owner changes the settings, and lets everybody read them.
			if err := errors.Join(os.WriteFile(env, []byte("AGENT_TARGETS=ssh=tcp:127.0.0.1:22\n"), 0o600), os.Chmod(env, 0o644)); err != nil {
				t.Fatal(err)
			}
			out.Reset()
			if err := plan(t, service.Install, o).Do(m, &out); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), "done ") {
				t.Errorf("the second time:\n%s", &out)
			}
			b, _ := os.ReadFile(env)
			info, err := os.Stat(env)
			if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(string(b), "ssh=") {
				t.Errorf("settings after the second time: %v, %v, %q", info.Mode(), err, b)
			}
			if err := plan(t, service.Uninstall, o).Do(m, &out); err != nil {
				t.Fatal(err)
			}
			left := tree(t, o.Root)
			if !strings.Contains(left, "etc/deviceagent/env 600\n") || strings.Contains(left, "init.d") || strings.Contains(left, ".service") || strings.Contains(left, "->") || strings.Contains(left, ".plist") {
				t.Errorf("uninstalled, and there is\n%s", left)
			}
			o.Purge = true
			if err := plan(t, service.Uninstall, o).Do(m, &out); err != nil {
				t.Fatal(err)
			}
			if left := tree(t, o.Root); strings.Contains(left, "etc/deviceagent") {
				t.Errorf("purged, and there is\n%s", left)
			}
		})
	}
}

// machine is a folder that looks like a machine with some programs.
type machine struct {
	*service.Machine
	root string
	ran  []string
}

func newMachine(t *testing.T, fails string, programs ...string) *machine {
	t.Helper()
	m := &machine{root: t.TempDir()}
	m.Machine = (&service.Machine{
		Run: func(name string, arg ...string) (string, error) {
			line := strings.Join(append([]string{name}, arg...), " ")
			m.ran = append(m.ran, line)
			if fails != "" && strings.HasPrefix(line, fails) {
				return "it is broken\n", errors.New("exit status 1")
			}
			if strings.Contains(line, "useradd --system") || strings.HasPrefix(line, "adduser -S") || strings.Contains(line, "user_add") {
				uid := os.Getuid() // so that chown may succeed for everybody
				return "", errors.Join(m.add("passwd", fmt.Sprintf("deviceagent:x:%d:%d::/:/bin/false\n", uid, os.Getgid())), m.add("group", fmt.Sprintf("deviceagent:x:%d:\n", os.Getgid())))
			}
			return "", nil
		},
		Has: func(name string) bool { return slices.Contains(programs, name) },
	}).Below(m.root)
	for _, table := range []string{"passwd", "group"} {
		if err := m.add(table, "root:x:0:0:root:/root:/bin/sh\nops:x:"+fmt.Sprintf("%d:%d::/:/bin/sh\n", os.Getuid(), os.Getgid())); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) add(table, line string) error {
	if err := os.MkdirAll(filepath.Join(m.root, "etc"), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(m.root, "etc", table), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// What is run on a machine, and in which order.
func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name     string
		init     service.Init
		programs []string
		want     []string
	}{
		{"Debian", service.Systemd, []string{"useradd"}, []string{
			"useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin deviceagent",
			"systemctl daemon-reload", "systemctl enable deviceagent.service", "systemctl restart deviceagent.service",
		}},
		{"Alpine", service.OpenRC, []string{"adduser", "addgroup"}, []string{
			"addgroup -S deviceagent", "adduser -S -D -H -h /nonexistent -s /sbin/nologin -G deviceagent deviceagent",
			"rc-update add deviceagent default", "rc-service deviceagent restart",
		}},
		{"OpenWrt", service.Procd, nil, []string{
			`/bin/sh -c . /lib/functions.sh && user_add "$1" "" "$(group_add_next "$1")" "$1" /var /bin/false sh deviceagent`,
			"/etc/init.d/deviceagent enable", "/etc/init.d/deviceagent restart",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				if os.Getenv("CI") != "" {
					t.Fatal("CI is to run as root: files of root's can be made by root only")
				}
				t.Skip("files of root's can be made by root only")
			}
			m := newMachine(t, "", tt.programs...)
			if tt.init == service.Procd {
				if err := os.MkdirAll(filepath.Join(m.root, "lib/functions.sh"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			for i := range 2 { // the second time the user is there
				if err := plan(t, service.Install, options(tt.init)).Do(m.Machine, &out); err != nil {
					t.Fatal(err)
				}
				want := tt.want
				if i == 1 {
					want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return strings.Contains(s, "add") && !strings.HasPrefix(s, "rc-") })
				}
				if !slices.Equal(m.ran, want) {
					t.Errorf("ran\n%s", strings.Join(m.ran, "\n"))
				}
				m.ran = nil
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     service.Options
		fails string
		has   []string
		want  string
	}{
		{"a program with a space", service.Options{Init: service.Systemd, Program: "/opt/my agent"}, "", nil, `program "/opt/my agent" is not a whole path`},
		{"a program with a percent", service.Options{Init: service.Systemd, Program: "/opt/%n"}, "", nil, "is not a whole path"},
		{"a program of here", service.Options{Init: service.Systemd, Program: "deviceagent"}, "", nil, "is not a whole path"},
		{"a program elsewhere", service.Options{Init: service.Systemd, Program: "/opt/../tmp/x"}, "", nil, "is not a whole path"},
		{"a user with a line", service.Options{Init: service.Systemd, User: "x\nExecStartPre=/bin/sh"}, "", nil, "is no name of a user"},
		{"an unknown init", service.Options{Init: "runit"}, "", nil, `init system "runit" is not known; [systemd openrc procd launchd windows] are`},
		{"Windows below a root", service.Options{Init: service.Windows, Root: "/x"}, "", nil, "cannot be installed below another root"},
		{"no such user", service.Options{Init: service.Systemd, User: "nobody-at-all"}, "", []string{"useradd"}, "user nobody-at-all: there is no such user"},
		{"no way to make one", service.Options{Init: service.Systemd}, "", nil, "neither useradd nor adduser"},
		{"systemd is broken", service.Options{Init: service.Systemd, User: "ops"}, "systemctl", nil, "run systemctl daemon-reload: exit status 1: it is broken"},
		{"nothing to copy", service.Options{Init: service.Systemd, User: "ops", Copy: "testdata/nothing"}, "", nil, "a copy of testdata/nothing: open testdata/nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := service.Install(tt.o)
			if err == nil {
				err = p.Do(newMachine(t, tt.fails, tt.has...).Machine, &bytes.Buffer{})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// Something that is no file in place of the settings is not followed.
func TestNoFile(t *testing.T) {
	o := options(service.Systemd)
	o.Root = t.TempDir()
	dir := filepath.Join(o.Root, "etc/deviceagent")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("/etc/shadow", filepath.Join(dir, "env"))); err != nil {
		t.Fatal(err)
	}
	if err := plan(t, service.Install, o).Do(&service.Machine{}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "something that is no file") {
		t.Errorf("got %v", err)
	}
}

func TestDetect(t *testing.T) {
	for _, tt := range []struct {
		goos  string
		files []string
		want  service.Init
	}{
		{"windows", nil, service.Windows},
		{"darwin", nil, service.Launchd},
		{"linux", []string{"usr/lib/systemd/systemd"}, service.Systemd},
		{"linux", []string{"lib/systemd/systemd", "sbin/openrc-run"}, service.Systemd},
		{"linux", []string{"sbin/procd", "etc/rc.common"}, service.Procd},
		{"linux", []string{"sbin/openrc-run"}, service.OpenRC},
		{"linux", []string{"sbin/procd", "sbin/runit"}, ""},
	} {
		root := t.TempDir()
		for _, f := range tt.files {
			if err := os.MkdirAll(filepath.Join(root, f), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		got, err := service.DetectOn(tt.goos, root)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, service.ErrNoInit) {
			t.Errorf("%s %v: %s, %v", tt.goos, tt.files, got, err)
		}
	}
}

func TestPlace(t *testing.T) {
	for _, tt := range []struct{ exe, program, from string }{
		{"/usr/bin/deviceagent", "/usr/bin/deviceagent", ""},
		{"/opt/bridge/agent", "/opt/bridge/agent", ""},
		{"/home/me/agent", "/usr/local/bin/deviceagent", "/home/me/agent"},
		{"/usr/lib/my agent", "/usr/local/bin/deviceagent", "/usr/lib/my agent"},
	} {
		if program, from := service.Place(service.Systemd, tt.exe); program != tt.program || from != tt.from {
			t.Errorf("%s: %s, %s", tt.exe, program, from)
		}
	}
}
