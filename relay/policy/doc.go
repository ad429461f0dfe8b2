// Package policy says who may reach which devices and targets, when, and how much,
// by one file.
//
// # The file
//
//	version: 1
//	groups:                            # of devices
//	  pumps: [pump-*, "well-?"]
//	rules:
//	  - name: operators
//	    who: [ops, "oidc:*@example.com", {claim: roles, is: Bridge.User}]
//	    devices: [{group: pumps}, valve-7]
//	    targets: [ssh, web]
//	    hours: {days: mon-fri, from: "07:00", to: "19:00", zone: Europe/Amsterdam}
//	    caps: {bridges: 5, max_duration: 2h}
//	  - name: no-valves-for-ci
//	    deny: true
//	    who: [ci]
//	    devices: ["valve-*"]
//	    targets: ["*"]
//
// What no rule allows is denied, and a rule with deny: true wins over all that
// allow. Of several rules that allow, the first one counts. A bridge to several
// targets needs each of them allowed; its caps are the strictest of the rules
// that did so.
//
//	version  1
//	groups   a name and globs of device IDs; {group: name} stands for them
//	rules    at least one:
//	  name     shown in explanations, the log and the audit
//	  deny     true: the rule denies
//	  who      whoever fits one item: a glob of the principal's name, or a mapping of
//	           name (a glob), method, claim and is (one value of that claim, exactly),
//	           all of which must fit
//	  devices  globs of device IDs, and groups
//	  targets  globs of targets; "-" is the device's default target, no target named
//	  hours    optional; a mapping, or a list of them, any of which may be open:
//	    days     a day or a range as mon-fri, or a list of these; absent: every day
//	    from     HH:MM, and to, which may be 24:00, or earlier than from: the next
//	             day's; absent: whole days
//	    zone     a name of the time zone database, as Europe/Amsterdam; or UTC
//	  caps     optional, not with deny; what is absent is not capped:
//	    bridges              at once, of one principal by this rule, on each node
//	    max_duration, idle   of each bridge, as 2h or 15m
//	    max_bytes            of each bridge, both ways together, as 1GiB
//	    connects_per_minute  of one principal by this rule, on each node
//
// Globs are those of package auth. YAML keeps some characters for itself: a glob that
// begins with * or ? or @, and "-", need quotes.
//
// A key that is not described here, a key or name that is there twice, an empty list,
// a glob, time or zone that is none, an anchor, an alias or a tag is a fault. All
// faults come at once, by line, unless the file is not YAML: then only the first.
//
// # Hours
//
// Hours are read off the clocks of their zone. A time that clocks skip in spring is
// the moment when they do; one that they show twice in autumn is the first of the two.
// A bridge ends when the hours do, because hours say when somebody may be in a
// plant, not when they may knock. Where another rule allows it then, it goes on,
// with the caps it has. Likewise a bridge ends when the hours of a rule that
// denies it begin.
//
// # Signed URLs
//
// Who uses a signed URL is judged each time, as whoever asked for it but by name only:
// the glob ops fits signed:ops, too. Method and claims of who asked are not known any
// more; its method is signed-url. So where rules go by claims, a rule has to let
// {method: signed-url} in. That opens nothing that was not open: the URL is good for
// one device and its targets, and was made for somebody who was allowed them then.
//
// # Explanations
//
// A denial says which part failed: who, the device, the target, the hours. It names a
// rule only if that rule is about the one who asks, and never what else it holds.
//
// # Why
//
// Why {group: pumps} and not @pumps: YAML does not let a word begin with @, and a
// device ID may.
//
// Why no anchors and aliases: a few hundred bytes of them stand for gigabytes, and
// groups do what they would be good for.
//
// Why deny rules at all, where everything is denied by default: "all but the valves"
// has no glob, and who adds a rule months later does not read the others.
package policy
