package service

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
)

// Name of the service, and of its user.
const Name = "deviceagent"

// Init is what starts services.
type Init string

// The init systems that are known.
const (
	Systemd Init = "systemd"
	OpenRC  Init = "openrc"
	Procd   Init = "procd"
	Launchd Init = "launchd"
	Windows Init = "windows"
)

// Inits are all of them.
var Inits = []Init{Systemd, OpenRC, Procd, Launchd, Windows}

// Options of Install and Uninstall.
type Options struct {
	Init    Init   // required
	Root    string // write below this folder and run nothing; empty: this machine
	Program string // the agent's program, on the machine that will run it; empty: Place has decided
	Copy    string // copy this file to Program first; empty: it is there
	User    string // empty: the default of the init system
	// Settings are the first content of the file of settings, if there is none yet.
	Settings string
	Start    bool // start it now, not only with the machine
	Purge    bool // Uninstall: remove the folder of settings, too
}

// programPath is for what is put between quotes in units, scripts and property lists.
var (
	programPath = regexp.MustCompile(`^/[A-Za-z0-9/._+@-]+$`)
	windowsPath = regexp.MustCompile(`^[A-Za-z]:\\[A-Za-z0-9\\ ()._+@-]+$`)
	userName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
	windowsUser = regexp.MustCompile(`^[A-Za-z0-9 ._-]+(\\[A-Za-z0-9 ._-]+)?$`)
)

func (o Options) withDefaults() Options {
	if o.User == "" {
		o.User = map[Init]string{Launchd: "nobody", Windows: `NT AUTHORITY\LocalService`}[o.Init]
	}
	if o.User == "" {
		o.User = Name
	}
	if o.Program == "" {
		o.Program = DefaultProgram(o.Init)
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	pathOK, userOK := programPath, userName
	if o.Init == Windows {
		pathOK, userOK = windowsPath, windowsUser
	}
	if newPlanner(o.Init) == nil {
		errs = append(errs, fmt.Errorf("init system %q is not known; %v are", o.Init, Inits))
	}
	if !pathOK.MatchString(o.Program) || path.Clean(o.Program) != o.Program && o.Init != Windows {
		errs = append(errs, fmt.Errorf("program %q is not a whole path of letters, digits and . _ + @ -, which is all that every init system takes without quoting", o.Program))
	}
	if !userOK.MatchString(o.User) {
		errs = append(errs, fmt.Errorf("user %q is no name of a user", o.User))
	}
	if o.Root != "" && o.Init == Windows {
		errs = append(errs, errors.New("services of Windows are not files: they cannot be installed below another root"))
	}
	return errors.Join(errs...)
}

// DefaultProgram is where the program is copied to if it cannot stay where it is.
func DefaultProgram(init Init) string {
	switch init {
	case Procd:
		return "/usr/bin/deviceagent"
	case Windows:
		return `C:\Program Files\deviceagent\deviceagent.exe`
	}
	return "/usr/local/bin/deviceagent"
}

// Place says where a program that is at exe now is to be run from, and what is to be
// copied there: nothing if it is in a folder that only an administrator writes to.
func Place(init Init, exe string) (program, copyFrom string) {
	for _, dir := range []string{"/usr/", "/opt/", "/bin/", "/sbin/"} {
		if strings.HasPrefix(exe, dir) && programPath.MatchString(exe) {
			return exe, ""
		}
	}
	if init == Windows && strings.HasPrefix(strings.ToLower(exe), `c:\program files`) && windowsPath.MatchString(exe) {
		return exe, ""
	}
	return DefaultProgram(init), exe
}

// EnvFile is where the settings are.
func EnvFile(init Init) string {
	if init == Windows {
		return `C:\ProgramData\deviceagent\env`
	}
	return "/etc/deviceagent/env"
}

// A Plan is what is to be done.
type Plan struct {
	o     Options
	steps []step
	notes []string // for a person, at the end
}

// Install plans the installation.
func Install(o Options) (*Plan, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	return newPlanner(o.Init).install(o), nil
}

// Uninstall plans the opposite.
func Uninstall(o Options) (*Plan, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	return newPlanner(o.Init).uninstall(o), nil
}

// Do does what is planned, and says of each step what came of it.
func (p *Plan) Do(m *Machine, out io.Writer) error {
	if p.o.Root != "" {
		m.root, m.image = p.o.Root, true
	}
	for _, s := range p.steps {
		done, err := s.do(m)
		if err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
		fmt.Fprintf(out, "%-9s %s\n", done, s.what())
	}
	return p.tell(out)
}

// Show says what Do would do.
func (p *Plan) Show(out io.Writer) error {
	for _, s := range p.steps {
		fmt.Fprintf(out, "would     %s\n", s.what())
	}
	return p.tell(out)
}

// Print writes the unit, script or whatever the init system would read, as it is.
func (p *Plan) Print(out io.Writer) error {
	for _, s := range p.steps {
		if f, ok := s.(*writeFile); ok && f.shown {
			_, err := io.WriteString(out, f.text)
			return err
		}
		if w, ok := s.(*windowsService); ok && !w.halt {
			_, err := io.WriteString(out, w.text())
			return err
		}
	}
	return nil
}

func (p *Plan) tell(out io.Writer) error {
	var err error
	for _, n := range p.notes {
		_, err = fmt.Fprintln(out, n)
	}
	return err
}
