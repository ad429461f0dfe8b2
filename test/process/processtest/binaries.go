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
