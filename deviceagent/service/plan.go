package service

import (
	_ "embed"
	"io/fs"
	"path"
	"strings"
)

var (
	//go:embed templates/systemd.service
	systemdUnit string
	//go:embed templates/openrc
	openrcScript string
	//go:embed templates/procd
	procdScript string
	//go:embed templates/launchd.plist
	launchdList string
)

// fill puts what differs from machine to machine into a template. Nothing in it needs
// quotes: validate has been here.
func fill(template string, o Options) string {
	return strings.NewReplacer("@PROGRAM@", o.Program, "@ENVFILE@", EnvFile(o.Init), "@USER@", o.User).Replace(template)
}

// A planner knows one init system.
type planner interface {
	install(o Options) *Plan
	uninstall(o Options) *Plan
}

func newPlanner(init Init) planner {
	if init == Windows {
		return windowsPlanner{}
	}
	if f, ok := families[init]; ok {
		return f
	}
	return nil
}

// A family is what one init system of Unix does in its own way.
type family struct {
	file     string // that it reads
	mode     fs.FileMode
	template string
	ownEnv   bool       // the agent reads the settings, and not the init system
	logFile  string     // the agent's, which the init system does not make for its user
	dir      string     // for the status socket, which nobody else makes
	links    []makeLink // by which it is enabled, for another root
	enable   [][]string // the same by commands
	start    [][]string // anew if it runs
	stop     [][]string // and disable; each may fail
	after    [][]string // uninstall, when the file is gone
	look     string     // how a person sees how it fares
}

var families = map[Init]family{
	Systemd: {
		file: "/etc/systemd/system/deviceagent.service", mode: 0o644, template: systemdUnit,
		links:  []makeLink{{"/etc/systemd/system/multi-user.target.wants/deviceagent.service", "/etc/systemd/system/deviceagent.service"}},
		enable: [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", "deviceagent.service"}},
		start:  [][]string{{"systemctl", "restart", "deviceagent.service"}},
		stop:   [][]string{{"systemctl", "disable", "--now", "deviceagent.service"}},
		after:  [][]string{{"systemctl", "daemon-reload"}},
		look:   "systemctl status deviceagent; journalctl -u deviceagent",
	},
	OpenRC: {
		file: "/etc/init.d/deviceagent", mode: 0o755, template: openrcScript, ownEnv: true,
		links:  []makeLink{{"/etc/runlevels/default/deviceagent", "/etc/init.d/deviceagent"}},
		enable: [][]string{{"rc-update", "add", "deviceagent", "default"}},
		start:  [][]string{{"rc-service", "deviceagent", "restart"}},
		stop:   [][]string{{"rc-service", "--ifexists", "deviceagent", "stop"}, {"rc-update", "--quiet", "del", "deviceagent", "default"}},
		look:   "rc-service deviceagent status; tail /var/log/deviceagent.log",
	},
	Procd: {
		file: "/etc/init.d/deviceagent", mode: 0o755, template: procdScript, ownEnv: true,
		links:  []makeLink{{"/etc/rc.d/S95deviceagent", "../init.d/deviceagent"}, {"/etc/rc.d/K10deviceagent", "../init.d/deviceagent"}},
		enable: [][]string{{"/etc/init.d/deviceagent", "enable"}},
		start:  [][]string{{"/etc/init.d/deviceagent", "restart"}},
		stop:   [][]string{{"/etc/init.d/deviceagent", "stop"}, {"/etc/init.d/deviceagent", "disable"}},
		look:   "/etc/init.d/deviceagent status; logread -e deviceagent",
	},
	Launchd: {
		file: "/Library/LaunchDaemons/websocketbridge.deviceagent.plist", mode: 0o644, template: launchdList, ownEnv: true,
		logFile: "/var/log/deviceagent.log", dir: "/var/db/deviceagent",
		start: [][]string{{"launchctl", "bootout", "system/websocketbridge.deviceagent"}, {"launchctl", "bootstrap", "system", "/Library/LaunchDaemons/websocketbridge.deviceagent.plist"}},
		stop:  [][]string{{"launchctl", "bootout", "system/websocketbridge.deviceagent"}},
		look:  "sudo launchctl print system/websocketbridge.deviceagent; tail /var/log/deviceagent.log",
	},
}

func (f family) install(o Options) *Plan {
	p := &Plan{o: o}
	add := func(s step) { p.steps = append(p.steps, s) }
	add(&makeUser{o.User})
	if o.Copy != "" {
		add(&writeFile{path: o.Program, mode: 0o755, from: o.Copy})
	}
	env := EnvFile(o.Init)
	add(&makeDir{path.Dir(env), 0o750, owner{"", o.User}})
	secret := owner{}
	if f.ownEnv {
		secret = owner{o.User, o.User}
	}
	add(&writeFile{path: env, mode: 0o600, owner: secret, text: o.Settings, keep: true})
	if f.dir != "" {
		add(&makeDir{f.dir, 0o755, owner{o.User, o.User}})
	}
	if f.logFile != "" {
		add(&writeFile{path: f.logFile, mode: 0o640, owner: owner{o.User, o.User}, keep: true})
	}
	add(&writeFile{path: f.file, mode: f.mode, text: fill(f.template, o), shown: true})
	if o.Root != "" {
		for _, l := range f.links {
			add(&l)
		}
		p.notes = append(p.notes, "the image needs a user "+o.User+"; "+path.Dir(env)+" has to belong to its group"+
			map[bool]string{true: ", and " + env + " to the user", false: ""}[f.ownEnv])
		return p
	}
	for _, c := range f.enable {
		add(&command{args: c})
	}
	if o.Start {
		for i, c := range f.start {
			add(&command{args: c, mayFail: i < len(f.start)-1})
		}
		p.notes = append(p.notes, "how it fares: deviceagent status; "+f.look)
	} else {
		p.notes = append(p.notes, "not started; when "+env+" is complete: "+strings.Join(f.start[len(f.start)-1], " "))
	}
	return p
}

func (f family) uninstall(o Options) *Plan {
	p := &Plan{o: o}
	add := func(s step) { p.steps = append(p.steps, s) }
	for _, c := range f.stop {
		add(&command{args: c, mayFail: true})
	}
	for _, l := range f.links {
		add(&remove{path: l.path})
	}
	add(&remove{path: f.file})
	for _, c := range f.after {
		add(&command{args: c})
	}
	if f.dir != "" {
		add(&remove{path: f.dir, all: true})
	}
	dir := path.Dir(EnvFile(o.Init))
	if o.Purge {
		add(&remove{path: dir, all: true})
		if f.logFile != "" {
			add(&remove{path: f.logFile})
		}
	} else {
		p.notes = append(p.notes, "kept: "+dir+" with the settings; --purge removes it, too")
	}
	p.notes = append(p.notes, "kept: the program, and user "+o.User)
	return p
}
