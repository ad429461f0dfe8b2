package processtest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"websocketbridge/test/process"
)

// Binaries are programs for all tests of a package, built when one asks for them.
type Binaries struct {
	dir   string
	build func() error
}

// NewBinaries is for packages, named as for go build.
func NewBinaries(packages ...string) *Binaries {
	b := &Binaries{}
	b.build = sync.OnceValue(func() (err error) {
		if b.dir, err = os.MkdirTemp("", "binaries"); err != nil {
			return err
		}
		return process.Build(context.Background(), b.dir, packages...)
	})
	return b
}

// Path is where a program is.
func (b *Binaries) Path(t testing.TB, name string) string {
	t.Helper()
	if err := b.build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(b.dir, name)
}

// Run runs the tests and removes the programs.
func (b *Binaries) Run(m *testing.M) int {
	defer func() { os.RemoveAll(b.dir) }() // empty: nobody asked
	return m.Run()
}

// BareEnv is an environment with nothing in it that could be a setting or a proxy, and
// more, which comes later and so prevails.
func BareEnv(more ...string) []string {
	env := []string{"LC_ALL=C.UTF-8"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, more...)
}
