//go:build images && linux

package images_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// composeFile is what this test knows of the format. What it does not know is an error: it
// would not be tested.
type composeFile struct {
	Name     string
	Services map[string]*service
	Volumes  map[string]struct {
		DriverOpts struct{ Type, Device, O string } `yaml:"driver_opts"`
	}
	Extensions map[string]any `yaml:",inline"` // x-…
}

type service struct {
	Image           string
	Build           struct{ Context, Target string }
	User            string
	Command         []string
	Environment     map[string]string
	Volumes         []string // SOURCE:TARGET[:ro]
	Tmpfs           []string // TARGET[:OPTIONS]
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	Ports           []string // 127.0.0.1:PORT:PORT
	Healthcheck     healthcheck
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	Restart         string
	StopGracePeriod string `yaml:"stop_grace_period"`
	Logging         any
}

type healthcheck struct {
	Test        []string
	Interval    string
	StartPeriod string `yaml:"start_period"`
	Disable     bool
}

func readCompose(t *testing.T, path string) composeFile {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for name := range c.Extensions {
		if !strings.HasPrefix(name, "x-") {
			t.Errorf("%s: this test does not know %s", path, name)
		}
	}
	return c
}

// project is a compose file that runs.
type project struct {
	t          *testing.T
	dir        string
	file       composeFile
	addrs      map[string]string // of services
	containers map[string]*container
}

// up starts every service once what it waits for is there.
func up(t *testing.T, c composeFile) *project {
	t.Helper()
	p := &project{t: t, dir: t.TempDir(), file: c, addrs: map[string]string{}, containers: map[string]*container{}}
	hosts := "127.0.0.1 localhost\n"
	for i, name := range slices.Sorted(maps.Keys(c.Services)) {
		p.addrs[name] = fmt.Sprintf("%s%d", network, i+10)
		hosts += p.addrs[name] + " " + name + "\n"
	}
	if err := os.WriteFile(p.at("hosts"), []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	for len(p.containers) < len(c.Services) {
		before := len(p.containers)
		for _, name := range slices.Sorted(maps.Keys(c.Services)) {
			missing := func(dep string) bool { return p.containers[dep] == nil }
			if p.containers[name] == nil && !slices.ContainsFunc(slices.Collect(maps.Keys(c.Services[name].DependsOn)), missing) {
				p.start(name)
			}
		}
		if len(p.containers) == before {
			t.Fatal("services wait for each other")
		}
	}
	return p
}

func (p *project) at(name string) string { return filepath.Join(p.dir, name) }

func (p *project) start(name string) {
	t := p.t
	t.Helper()
	s := p.file.Services[name]
	for dep, how := range s.DependsOn {
		switch on := p.containers[dep]; how.Condition {
		case "service_started":
		case "service_completed_successfully":
			on.exits(0)
		case "service_healthy":
			until(t, dep+" is healthy", func() bool {
				on.mustRun()
				return on.exec(p.file.Services[dep].Healthcheck.Test[1:]...) == nil
			})
		default:
			t.Fatalf("%s: condition %q", name, how.Condition)
		}
	}
	im, err := load(imageOf(s))
	if err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, name, im, p.addrs[name])
	if s.User != "" {
		c.user = s.User
	}
	c.readOnly = s.ReadOnly
	c.noNewPrivileges = slices.Contains(s.SecurityOpt, "no-new-privileges:true")
	if !slices.Equal(s.CapDrop, []string{"ALL"}) {
		t.Errorf("%s keeps capabilities", name)
	}
	c.env = append(c.env, im.config.Env...)
	for key, value := range s.Environment {
		c.env = append(c.env, key+"="+value)
	}
	c.args = slices.Concat(im.config.Entrypoint, im.config.Cmd)
	if len(s.Command) > 0 {
		c.args = slices.Concat(im.config.Entrypoint, s.Command)
	}
	c.mount(p.at("hosts"), "/etc/hosts", "ro")
	for _, v := range s.Volumes {
		source, rest, _ := strings.Cut(v, ":")
		target, options, _ := strings.Cut(rest, ":")
		if strings.HasPrefix(source, ".") {
			source = filepath.Join(root, "infra", source)
		} else {
			source = p.volume(source, filepath.Join(im.rootfs, target))
		}
		c.mount(source, target, options)
	}
	for _, v := range s.Tmpfs {
		target, options, _ := strings.Cut(v, ":")
		c.tmpfs(target, options)
	}
	c.start()
	p.containers[name] = c
}

// imageOf is the name that build gave the service's image.
func imageOf(s *service) string {
	if s.Build.Target != "" {
		return s.Build.Target
	}
	name, _, _ := strings.Cut(s.Image, ":")
	return name
}

// volume is a folder for a named volume. As long as it is empty it gets its owner from the folder that the
// image has where it is mounted, as Docker does; one of tmpfs from its options.
func (p *project) volume(name, inImage string) string {
	t := p.t
	t.Helper()
	v, known := p.file.Volumes[name]
	if !known {
		t.Fatalf("there is no volume %s", name)
	}
	dir := p.at("volume-" + name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if v.DriverOpts.Type == "tmpfs" {
		var uid, gid, mode int
		if _, err := fmt.Sscanf(v.DriverOpts.O, "uid=%d,gid=%d,mode=%o", &uid, &gid, &mode); err != nil {
			t.Fatalf("volume %s: %q: %v", name, v.DriverOpts.O, err)
		}
		os.Chown(dir, uid, gid)
		os.Chmod(dir, os.FileMode(mode))
		return dir
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(inImage); err == nil && len(entries) == 0 {
		if err := command("sh", "-c", `chown --reference="$1" "$2" && chmod --reference="$1" "$2"`, "sh", inImage, dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
