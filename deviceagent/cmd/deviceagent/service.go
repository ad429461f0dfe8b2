package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"websocketbridge/deviceagent/service"
	"websocketbridge/relay/settings"
)

const serviceHelp = `
As a service of systemd, OpenRC, OpenWrt (procd), macOS (launchd) or Windows, as root:
  deviceagent install [--user NAME] [--no-start] [--dry-run | --print]
  deviceagent uninstall [--purge] [--dry-run]
Its settings are in /etc/deviceagent/env (Windows: %ProgramData%\deviceagent\env), which
the first install makes of the AGENT_* variables that it finds. Installing again updates
program and unit, and keeps the settings. Further options of both:
  --init NAME      for systemd, openrc, procd, launchd or windows; default: what is there
  --root FOLDER    write below it, for an image, and run nothing
  --program PATH   run this program, and copy none
  --dry-run        show what would be done
  --print          print the unit or script, and do nothing
Where a service manager cannot read a file of settings: deviceagent --env-file FILE.
`

// commandTime is for one program that install runs. Starting may wait for the hub.
const commandTime = 2 * time.Minute

// changeService is deviceagent install and uninstall.
func changeService(verb string, args []string, out io.Writer) error {
	var (
		o                  service.Options
		init               string
		dry, show, noStart bool
		installing         = verb == "install"
		flags              = flag.NewFlagSet(verb, flag.ContinueOnError)
	)
	flags.SetOutput(io.Discard)
	flags.StringVar(&init, "init", "", "")
	flags.StringVar(&o.Root, "root", "", "")
	flags.StringVar(&o.User, "user", "", "")
	flags.BoolVar(&dry, "dry-run", false, "")
	if installing {
		flags.StringVar(&o.Program, "program", "", "")
		flags.BoolVar(&show, "print", false, "")
		flags.BoolVar(&noStart, "no-start", false, "")
	} else {
		flags.BoolVar(&o.Purge, "purge", false, "")
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%s: %w; see deviceagent --help", verb, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s: unknown argument %q; settings come from the environment, see deviceagent --help", verb, flags.Arg(0))
	}
	var err error
	if o.Root != "" {
		if o.Root, err = filepath.Abs(o.Root); err == nil {
			_, err = os.Stat(o.Root)
		}
		if err != nil {
			return fmt.Errorf("%s: --root: %w", verb, err)
		}
	}
	o.Init = service.Init(init)
	if init == "" {
		if o.Init, err = service.Detect(o.Root); err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
	}
	var missing error
	if installing {
		if missing, err = prepare(&o, noStart); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	plan := service.Uninstall
	if installing {
		plan = service.Install
	}
	p, err := plan(o)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", verb, err)
	case show:
		return p.Print(out)
	case dry:
		err = p.Show(out)
	case o.Root == "" && !service.Privileged():
		return fmt.Errorf("%s: only root, or an administrator, may change services; run it by sudo, or with --dry-run to see what it would do", verb)
	default:
		err = p.Do(machine(), out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if missing != nil && !noStart && o.Root == "" {
		fmt.Fprintf(out, "it was not started, because of its settings in %s:\n%v\n", service.EnvFile(o.Init), missing)
	}
	return nil
}

// prepare decides what program runs, what its settings are, and whether it can start:
// missing says why not.
func prepare(o *service.Options, noStart bool) (missing, err error) {
	if o.Program == "" {
		exe, err := os.Executable()
		if err == nil {
			exe, err = filepath.EvalSymlinks(exe)
		}
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		if o.Program, o.Copy = service.Place(o.Init, exe); o.Root != "" {
			o.Program, o.Copy = service.DefaultProgram(o.Init), exe
		}
	}
	var vars []settings.Variable
	vars, err = settings.ReadEnvFile(filepath.Join(o.Root, service.EnvFile(o.Init)))
	switch {
	case errors.Is(err, os.ErrNotExist):
		vars = fromEnviron(os.Environ())
		if o.Settings, err = formatSettings(vars); err != nil {
			return nil, err
		}
	case errors.Is(err, os.ErrPermission): // --dry-run or --print by somebody else
		return nil, nil
	case err != nil:
		return nil, err
	}
	missing = checkSettings(vars)
	o.Start = !noStart && missing == nil
	return missing, nil
}

// proxies are heeded by the agent, and not AGENT_*.
var proxies = []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}

// fromEnviron are the agent's settings among environ. A secret in a file becomes the
// secret itself: the service's user could not read somebody's file.
func fromEnviron(environ []string) []settings.Variable {
	var vars []settings.Variable
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "AGENT_") || slices.Contains(proxies, name) {
			vars = append(vars, settings.Variable{Name: name, Value: value})
		}
	}
	slices.SortFunc(vars, func(a, b settings.Variable) int { return strings.Compare(a.Name, b.Name) })
	for i, v := range vars {
		if name, ok := strings.CutSuffix(v.Name, "_FILE"); ok && name != "AGENT_CA" {
			if secret, err := settings.ReadSecret(v.Value); err == nil {
				vars[i] = settings.Variable{Name: name, Value: secret}
			}
		}
	}
	return vars
}

const settingsHead = `# Settings of deviceagent, one NAME=value a line; deviceagent --help has all of them.
# There are secrets here: nobody but the owner may read it.
`

// settingsWanted is for an owner who has set nothing yet.
const settingsWanted = `
# Who this device is at its hub, from the device's (better: its module's) page there:
#AGENT_HUB_CONNECTION_STRING=HostName=hub.azure-devices.net;DeviceId=pump-7;ModuleId=bridge;SharedAccessKey=...
# Relays that it may dial, and what can be reached:
#AGENT_RELAY_HOSTS=relay.example.com
#AGENT_TARGETS=ssh=tcp:127.0.0.1:22
`

// retryTakenOver: a service is tried again rather than left off, since its device may be
// reached in no other way.
const retryTakenOver = "10m"

func formatSettings(vars []settings.Variable) (string, error) {
	var b strings.Builder
	b.WriteString(settingsHead)
	if len(vars) == 0 {
		b.WriteString(settingsWanted)
	} else {
		b.WriteString("\n")
	}
	for _, v := range vars {
		line, err := settings.FormatEnv(v)
		if err != nil {
			return "", err
		}
		b.WriteString(line + "\n")
	}
	if !slices.ContainsFunc(vars, func(v settings.Variable) bool { return v.Name == "AGENT_RETRY_TAKEN_OVER" }) {
		b.WriteString("AGENT_RETRY_TAKEN_OVER=" + retryTakenOver + "\n")
	}
	return b.String(), nil
}

// checkSettings says what an agent with these settings would complain of. This process
// does nothing else with its environment.
func checkSettings(vars []settings.Variable) error {
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AGENT_") {
			os.Unsetenv(name)
		}
	}
	for _, v := range vars {
		os.Setenv(v.Name, v.Value)
	}
	_, _, err := load("", nil, io.Discard, io.Discard)
	var faults settings.Faults
	if !errors.As(err, &faults) {
		return err
	}
	faults = slices.DeleteFunc(faults, func(f settings.Fault) bool {
		// Its folder is there when the service is.
		return f.Name == "AGENT_KILL_SWITCH" && strings.HasPrefix(os.Getenv(f.Name), "/run/deviceagent/")
	})
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// machine is this one.
func machine() *service.Machine {
	return &service.Machine{
		Run: func(name string, arg ...string) (string, error) {
			ctx, cancel := context.WithTimeout(context.Background(), commandTime)
			defer cancel()
			said, err := exec.CommandContext(ctx, name, arg...).CombinedOutput()
			return string(said), err
		},
		Has: func(name string) bool {
			_, err := exec.LookPath(name)
			return err == nil
		},
	}
}
