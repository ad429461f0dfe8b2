package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	_ "time/tzdata" // an image of nothing but this program has no time zones for the hours of a policy

	"github.com/spf13/cobra"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
)

// followPolicy puts what the file says in force. Open bridges stay, unless RELAY_POLICY_REVOKE.
func (p *prepared) followPolicy(path string) error {
	rules := new(policy.Policy)
	p.relay.Policy = rules
	return p.follow(&watched{
		settings: []string{"RELAY_POLICY"}, files: []string{path}, read: policy.ReadFile,
		apply: func(texts []string) ([]any, error) {
			if err := rules.Replace(texts[0]); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return []any{"rules", rules.Len()}, nil
		},
	})
}

// exitDenied is the exit code of check-policy where the file is good and the answer no, as
// that of bridge can-i.
const exitDenied = 4

// An exitError is an error with an exit code other than 1.
type exitError struct {
	error
	code int
}

// wish is what check-policy asks about.
type wish struct {
	as, method, device, at string
	targets, claims        []string
}

// newCheckPolicy looks at a policy file without a relay.
func newCheckPolicy() *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "check-policy FILE",
		Short: "Look for faults in a file for RELAY_POLICY, and ask it who may do what",
		Long: `check-policy reads a policy file as a relay would and reports every fault by its
line. With --as and --device it also says what the policy decides, and why:

  relay check-policy policy.yaml --as ops --device pump-7 --target ssh
  relay check-policy policy.yaml --as oidc:ann@example.com --claim roles=Bridge.User \
      --device pump-7 --target ssh --at 2027-01-30T22:14:00Z

It knows nothing of API keys: theirs are limits besides.

Exit codes: 0 the file is good, and the answer yes; 1 it has faults; 4 the answer is no.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("check-policy takes one file: relay check-policy /etc/relay/policy.yaml")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readFile(args[0]) // whoever may write it: a checkout in CI is no installation
			if err != nil {
				return err
			}
			p, err := policy.Parse(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if w.as == "" && w.device == "" && len(w.targets)+len(w.claims) == 0 && w.method == "" && w.at == "" {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %d rules\n", args[0], p.Len())
				return nil
			}
			return w.ask(p, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&w.as, "as", "", "`name` of the principal")
	cmd.Flags().StringVar(&w.method, "method", "", "how it is authenticated, as api-key or oidc (default: api-key; oidc with --claim)")
	cmd.Flags().StringArrayVar(&w.claims, "claim", nil, "a claim of it as `name=value`; may be repeated")
	cmd.Flags().StringVar(&w.device, "device", "", "ID of the `device`")
	cmd.Flags().StringArrayVar(&w.targets, "target", nil, "`target` on it; may be repeated (default: the device's default target)")
	cmd.Flags().StringVar(&w.at, "at", "", "`time`, as 2027-01-31T07:00:00Z (default: now)")
	return cmd
}

func (w *wish) ask(p *policy.Policy, out io.Writer) error {
	if w.as == "" || w.device == "" {
		return errors.New("to ask the policy, name who and what: --as NAME --device DEVICE")
	}
	at := time.Now()
	if w.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, w.at); err != nil {
			return errors.New("--at is no time, as 2027-01-31T07:00:00Z")
		}
	}
	by := &auth.Principal{Name: w.as, Method: w.method}
	for _, c := range w.claims {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return errors.New("--claim is no name=value")
		}
		if by.Claims == nil {
			by.Claims = make(map[string][]string)
		}
		by.Claims[name] = append(by.Claims[name], value)
	}
	switch {
	case by.Method != "":
	case len(w.claims) > 0:
		by.Method = auth.MethodOIDC
	case strings.HasPrefix(w.as, auth.SignedPrefix):
		by.Method = auth.MethodSigned
	default:
		by.Method = auth.MethodAPIKey
	}
	targets := w.targets
	if len(targets) == 0 {
		targets = []string{""}
	}
	d := p.Decide(by, w.device, targets, at)
	if !d.Allowed {
		return exitError{errors.New("no: " + d.Why), exitDenied}
	}
	_, err := fmt.Fprintln(out, "yes: "+d.Why)
	return err
}
