//go:build images && linux

package images_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// targets are the Dockerfile's; the last is what is built without a target.
var targets = []string{"deviceagent", "bridge", "emulator", "relay"}

// image is what a target became.
type image struct {
	rootfs string
	config imageConfig
}

// imageConfig is the part of an image's configuration that a container begins with.
type imageConfig struct {
	User        string
	Env         []string
	Entrypoint  []string
	Cmd         []string
	WorkingDir  string
	Healthcheck *struct{ Test []string }
}

// version is told to the build, and said by the programs.
const version = "1.2.3-test"

// build makes every image below dir: NAME/rootfs and NAME/config.json. The relay's is
// made twice, as relay-again, from another folder and without what was built before.
func build(dir string) error {
	b := &builder{dir: dir}
	defer b.clean()
	if err := b.choose(); err != nil {
		return err
	}
	if err := b.standInGo(); err != nil {
		return fmt.Errorf("a stand-in for the image with Go: %w", err)
	}
	for _, target := range targets {
		args := []string{"--target", target}
		if target == "relay" {
			args = nil
		}
		began := time.Now()
		if err := b.image(root, target, args...); err != nil {
			return err
		}
		fmt.Printf("image %s: built in %v\n", target, time.Since(began).Round(time.Second))
	}
	copied := filepath.Join(dir, "copied")
	if err := copyTracked(copied); err != nil {
		return err
	}
	if err := b.image(copied, "relay-again", "--no-cache"); err != nil {
		return err
	}
	return standInCaddy(filepath.Join(dir, "caddy"))
}

type builder struct {
	dir    string
	driver string
}

func (b *builder) buildah(command string, args ...string) (string, error) {
	all := []string{"--root", filepath.Join(b.dir, "store"), "--runroot", filepath.Join(b.dir, "runroot"), "--storage-driver", b.driver, command}
	cmd := exec.Command("buildah", append(all, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+b.dir) // caches of RUN --mount are there, too
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		said := errOut.String() + string(out)
		return "", fmt.Errorf("buildah %s: %w\n%s", command, err, said[max(0, len(said)-4000):])
	}
	return strings.TrimSpace(string(out)), nil
}

// choose takes the storage driver that works here.
func (b *builder) choose() (err error) {
	for _, b.driver = range []string{"overlay", "vfs"} {
		var c string
		if c, err = b.buildah("from", "scratch"); err == nil {
			if _, err = b.buildah("mount", c); err == nil {
				_, err = b.buildah("rm", c)
			}
		}
		if err == nil {
			return nil
		}
	}
	return err
}

func (b *builder) clean() {
	if b.driver != "" {
		b.buildah("rm", "--all")
		b.buildah("rmi", "--all", "--force")
	}
}

const goImage = "localhost/go"

// standInGo makes an image with a shell and certificates. Go itself is this machine's, by a
// volume.
func (b *builder) standInGo() error {
	c, err := b.buildah("from", "scratch")
	if err != nil {
		return err
	}
	m, err := b.buildah("mount", c)
	if err != nil {
		return err
	}
	if err := busybox(m); err != nil {
		return err
	}
	certs := filepath.Join(m, "etc/ssl/certs")
	if err := os.MkdirAll(certs, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"tmp", "usr/local/go", "modules", "root/.cache"} {
		if err := os.MkdirAll(filepath.Join(m, dir), 0o755); err != nil {
			return err
		}
	}
	if err := command("cp", "-L", "/etc/ssl/certs/ca-certificates.crt", certs); err != nil {
		return err
	}
	if _, err := b.buildah("config", "--env", "PATH=/usr/local/go/bin:/bin", "--env", "HOME=/root", "--env", "GOTOOLCHAIN=local", "--env", "GOPATH=/go", c); err != nil {
		return err
	}
	_, err = b.buildah("commit", "--quiet", "--rm", c, goImage)
	return err
}

// busybox puts a shell and its friends into bin below dir.
func busybox(dir string) error {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("install busybox-static: %w", err)
	}
	if err := command("cp", path, bin); err != nil {
		return err
	}
	for _, name := range []string{"sh", "mkdir", "cp", "echo", "find", "touch", "wget"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

// image builds one target of the Dockerfile in context, and takes it out of buildah's store.
// Modules come from this machine's cache; what is not there, from where it has them.
func (b *builder) image(context, name string, more ...string) error {
	env, err := output("go", "env", "-json", "GOROOT", "GOMODCACHE", "GOPROXY", "GOCACHE")
	if err != nil {
		return err
	}
	var host struct{ GOROOT, GOMODCACHE, GOPROXY, GOCACHE string }
	if err := json.Unmarshal([]byte(env), &host); err != nil {
		return err
	}
	args := []string{
		"--isolation", "chroot", "--format", "docker", "--pull-never", "--layers", "--timestamp", "1700000000",
		"--build-arg", "GO_IMAGE=" + goImage, "--build-arg", "VERSION=" + version, "--build-arg", "SOURCE_DATE_EPOCH=1700000000",
		"--build-arg", "GOPROXY=file:///modules," + host.GOPROXY,
		"--volume", host.GOROOT + ":/usr/local/go:ro", "--volume", filepath.Join(host.GOMODCACHE, "cache/download") + ":/modules:ro", "--volume", host.GOCACHE + ":/gocache",
		"--tag", "localhost/" + name, "--file", filepath.Join(context, "Dockerfile"),
	}
	if _, err := b.buildah("bud", append(append(args, more...), context)...); err != nil {
		return err
	}
	c, err := b.buildah("from", "--pull-never", "localhost/"+name)
	if err != nil {
		return err
	}
	m, err := b.buildah("mount", c)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := command("cp", "-a", m, filepath.Join(dir, "rootfs")); err != nil {
		return err
	}
	text, err := b.buildah("inspect", "--type", "image", "localhost/"+name)
	if err != nil {
		return err
	}
	var about struct {
		Docker struct{ Config json.RawMessage }
	}
	if err := json.Unmarshal([]byte(text), &about); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), about.Docker.Config, 0o644); err != nil {
		return err
	}
	_, err = b.buildah("rm", c)
	return err
}

// copyTracked copies the files that Git knows to a folder, as a fresh clone has them.
func copyTracked(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return command("sh", "-c", `cd "$1" && git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$2"`, "sh", root, dir)
}

// standInCaddy makes Caddy's image of this machine's program.
func standInCaddy(dir string) error {
	rootfs := filepath.Join(dir, "rootfs")
	if err := busybox(rootfs); err != nil {
		return err
	}
	caddy, err := exec.LookPath("caddy")
	if err != nil {
		return fmt.Errorf("install caddy: %w", err)
	}
	files := []string{caddy}
	if out, err := exec.Command("ldd", caddy).Output(); err == nil { // Debian's is not static
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
	}
	for _, file := range files {
		if err := command("sh", "-c", `mkdir -p "$1${2%/*}" && cp -L "$2" "$1$2"`, "sh", rootfs, file); err != nil {
			return err
		}
	}
	config, err := json.Marshal(imageConfig{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "XDG_CONFIG_HOME=/config", "XDG_DATA_HOME=/data"},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
}

// load reads an image that build has made.
func load(name string) (image, error) {
	im := image{rootfs: filepath.Join(store, name, "rootfs")}
	b, err := os.ReadFile(filepath.Join(store, name, "config.json"))
	if err != nil {
		return im, err
	}
	return im, json.Unmarshal(b, &im.config)
}
