package service

import "fmt"

// windowsService is the agent in the service control manager.
type windowsService struct {
	program, args, user string
	halt                bool // only stop it: Windows replaces no program that runs
	gone                bool // remove it
	start               bool
}

func (s *windowsService) what() string {
	if s.halt {
		return "stop service " + Name + " if it runs"
	}
	if s.gone {
		return "remove service " + Name
	}
	return fmt.Sprintf("service %s: %s as %s", Name, s.commandLine(), s.user)
}

func (s *windowsService) commandLine() string { return fmt.Sprintf(`"%s" %s`, s.program, s.args) }

// Of the service, for Print and for the manager.
const (
	windowsDisplay     = "websocketbridge device agent"
	windowsDescription = "Serves bridges on this device"
)

// text shows what the manager is given.
func (s *windowsService) text() string {
	return fmt.Sprintf(`Name:        %s
DisplayName: %s
Description: %s
CommandLine: %s
Account:     %s
Start:       automatic, delayed
SidType:     unrestricted
Recovery:    restart after 10 s, also after an exit status that is not 0; forget failures after 1 day
EventLog:    source %s in Application
`, Name, windowsDisplay, windowsDescription, s.commandLine(), s.user, Name)
}

// windowsACL makes a folder or file readable for the service's account, and writable for
// the system and administrators only.
type windowsACL struct {
	path, user string
	writable   bool // the account may create files in it: the status socket
}

func (s *windowsACL) what() string {
	return "access to " + s.path + " for administrators and " + s.user
}

type windowsPlanner struct{}

const windowsDir = `C:\ProgramData\deviceagent`

func (windowsPlanner) install(o Options) *Plan {
	p := &Plan{o: o}
	add := func(s step) { p.steps = append(p.steps, s) }
	if o.Copy != "" {
		add(&windowsService{halt: true})
		add(&writeFile{path: o.Program, mode: 0o755, from: o.Copy})
	}
	env := EnvFile(Windows)
	add(&makeDir{windowsDir, 0o700, owner{}})
	add(&windowsACL{windowsDir, o.User, true})
	add(&writeFile{path: env, mode: 0o600, text: o.Settings, keep: true})
	add(&windowsACL{env, o.User, false})
	add(&windowsService{program: o.Program, args: `--env-file "` + env + `"`, user: o.User, start: o.Start})
	if o.Start {
		p.notes = append(p.notes, "how it fares: deviceagent status; sc.exe query deviceagent; the event log Application, source deviceagent")
	} else {
		p.notes = append(p.notes, "not started; when "+env+" is complete: sc.exe start deviceagent")
	}
	return p
}

func (windowsPlanner) uninstall(o Options) *Plan {
	p := &Plan{o: o, steps: []step{&windowsService{gone: true}}}
	if o.Purge {
		p.steps = append(p.steps, &remove{path: windowsDir, all: true})
	} else {
		p.notes = append(p.notes, "kept: "+windowsDir+" with the settings; --purge removes it, too")
	}
	p.notes = append(p.notes, "kept: the program")
	return p
}
