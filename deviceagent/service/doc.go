// Package service installs the agent as a service of the machine's init system, and
// takes it away again.
//
//	systemd  /etc/systemd/system/deviceagent.service
//	openrc   /etc/init.d/deviceagent
//	procd    /etc/init.d/deviceagent (OpenWrt)
//	launchd  /Library/LaunchDaemons/websocketbridge.deviceagent.plist
//	windows  the service deviceagent, and its source in the event log
//
// Which one, Detect finds out. What is to be done is planned first, as a list of steps,
// and then shown, or done. A step that finds its work done already does nothing, so
// installing again is how an agent is updated.
//
// # Settings
//
// /etc/deviceagent/env, on Windows %ProgramData%\deviceagent\env, has the settings, one
// NAME=value a line (settings.ParseEnv), and nobody but its owner can read it. Neither unit, script nor
// arguments ever hold a setting: all users can read those. One that is there is never
// changed; else it is made of the AGENT_* variables and proxies of whoever installs, so that
// an agent that was tried by hand goes on as a service.
//
//	          read by                            owner
//	systemd   systemd, before it drops root      root
//	others    the agent (--env-file)             the agent's user; Windows: an ACL
//
// # User
//
// The agent needs no privileges. It runs as user deviceagent, which is made where it is
// missing (useradd, BusyBox's adduser, OpenWrt's user_add), on macOS as nobody, on Windows as
// LocalService. Files that it reads itself, such as a certificate's key, have to be
// readable for that user: /etc/deviceagent belongs to its group.
//
// # Another root
//
// With Options.Root files are written below that folder, for an image: nothing is run, the service
// is enabled by the links that its init system would make, and no user is made.
//
// # Uninstall
//
// It stops the service and removes what Install wrote, except for the program, the user,
// and, without Purge, the folder of settings.
//
// # Why
//
// Why not github.com/kardianos/service, which knows all five: it writes environment
// variables into units that all can read, cannot show what it would do or write
// elsewhere, makes no user, and its unit for systemd has no hardening, so that all
// of its templates would be ours anyway. It would also add what text/template needs to each binary.
//
// Why a user and no DynamicUser: the files of a certificate, and programs that hand
// signals over, need a user and a group that are there before the agent is.
//
// Why the program is copied if it is in a home directory: a service that starts what a
// user may replace gives that user the service's rights; and ProtectHome hides it.
package service
