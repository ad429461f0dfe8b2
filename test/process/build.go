package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Build builds packages, named as for go build, as files in dir. Flags may come before
// them.
func Build(ctx context.Context, dir string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)...) // #nosec G204 -- to build is what it is for
	Own(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// CleanEnv is the environment without settings of our programs and without proxies.
func CleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, "RELAY_") || strings.HasPrefix(name, "AGENT_") || strings.HasPrefix(name, "BRIDGE_") ||
			strings.HasSuffix(strings.ToUpper(name), "_PROXY")
	})
}
