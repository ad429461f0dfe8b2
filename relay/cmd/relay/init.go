package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/token"
	"websocketbridge/signaler"
)

// Files that init makes.
const (
	initTokenKeys = "token-keys"
	initSignalKey = "signal-key"
	initPublicKey = "signal-key.pub"
	initAPIKeys   = "api-keys"
)

// newInit makes all keys at once, for images without a shell that could redirect
// what the other commands print.
func newInit() *cobra.Command {
	name := "me"
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Make the keys that a relay needs to begin with, as files in a folder",
		Long: `init makes what is not there yet of these files in DIR, and the folder itself, and
leaves what is there as it is:

  token-keys      for RELAY_TOKEN_KEYS_FILE of every node
  signal-key      for RELAY_SIGNAL_KEY_FILE of every node
  signal-key.pub  its public line, for AGENT_SIGNAL_KEYS of every device
  api-keys        for RELAY_API_KEYS of every node; holds a hash
  NAME.key        the API key itself, for BRIDGE_API_KEY_FILE of its user; made with
                  api-keys only, so that it can be moved to where it belongs

Only this user may read them. token-key, keygen and hash-key make single ones.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("init takes a folder: relay init /etc/relay")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return initialize(args[0], name, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&name, "name", name, "whose the API key is, for the log to say who came")
	return cmd
}

// initialize says on out what it did with each file.
func initialize(dir, name string, out io.Writer) error {
	if name != filepath.Base(name) || name == "." || name == ".." {
		return fmt.Errorf("--name: %q cannot be a file's name", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f := keyFolder{dir: dir, out: out}
	f.keep(initTokenKeys, func() (string, error) { return token.NewKey().Reveal(), nil })
	private := f.keep(initSignalKey, func() (string, error) { return signaler.NewSigningKey().Reveal(), nil })
	f.keep(initPublicKey, func() (string, error) {
		key, err := signaler.ParseSigningKey(private)
		if err != nil {
			return "", err
		}
		return key.Public().String(), nil
	})
	if f.has(initAPIKeys) {
		f.keep(initAPIKeys, nil)
		return f.err
	}
	key := f.keep(name+".key", func() (string, error) { return auth.NewAPIKey(), nil })
	f.keep(initAPIKeys, func() (string, error) {
		hash, err := auth.HashKey(strings.TrimSpace(key))
		if err != nil {
			return "", err
		}
		line := name + " " + hash
		_, err = auth.ParseKeys(line)
		return line, err
	})
	return f.err
}

// keyFolder makes files until one fails.
type keyFolder struct {
	dir string
	out io.Writer
	err error
}

func (f *keyFolder) has(name string) bool {
	_, err := os.Lstat(filepath.Join(f.dir, name))
	return err == nil
}

// keep returns what is in the file, and makes it before if it is not there.
func (f *keyFolder) keep(name string, fresh func() (string, error)) (text string) {
	if f.err != nil {
		return ""
	}
	path := filepath.Join(f.dir, name)
	defer func() {
		if f.err != nil {
			f.err = fmt.Errorf("%s: %w", path, f.err)
		}
	}()
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		_, f.err = fmt.Fprintln(f.out, "kept", path)
		return string(b)
	case !errors.Is(err, os.ErrNotExist):
		f.err = err
		return ""
	}
	if text, f.err = fresh(); f.err != nil {
		return ""
	}
	if f.err = create(path, text+"\n"); f.err == nil {
		_, f.err = fmt.Fprintln(f.out, "made", path)
	}
	return text
}

// create makes a file in one step: who finds it there finds all of it.
func create(path, text string) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), ".new-*") // its mode is 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(t.Name())
		}
	}()
	_, err = t.WriteString(text)
	if err := errors.Join(err, t.Sync(), t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}
