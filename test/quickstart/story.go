package main

import (
	"fmt"
	"strings"
)

// story is what the timeline is about.
func story(nodes int, tl *timeline) string {
	if nodes == 1 {
		return fmt.Sprintf(storyOfOne, device, tl)
	}
	var b strings.Builder
	for i := range nodes {
		left, right := "├", "┤"
		switch i {
		case 0:
			right = "┬── hub ──┘"
		case nodes - 1:
			left, right = "└", "┘"
		}
		if i > 0 {
			b.WriteString("                  │      ↕      │\n")
		}
		fmt.Fprintf(&b, "                  %s──► node %d ──%s\n", left, i+1, right)
	}
	return fmt.Sprintf(storyOfMany, device, nodes, &b, tl)
}

const storyOfOne = `A page of device %s, fetched through a relay. The relay cannot connect to the device;
it can only have the hub hand it a signal, and then the device dials the relay:

  requester ──► relay ◄── device ──► its web server
                  └── hub ──┘

%s
`

const storyOfMany = `A page of device %s, fetched through a relay of %d nodes. None of them can connect to the
device; the one that the requester reaches can only have the hub hand it a signal, and then
the device dials the relay. A front gives each connection to the next node, as load balancers
do, so the device reaches another node, and that passes it on to the one where the requester
waits, the owner of the bridge:

  requester ──► front ◄────────────── device ──► its web server
%s
%s
`

// next is what a newcomer can paste. Every line of it is run by a test.
func next(page string, r *aRelay) string {
	return fmt.Sprintf(nextText, page, r.url, r.key, device, device, device, r.admin)
}

const nextText = `Now try it yourself; all of this stays up until Ctrl-C. The same page again:

  curl %s

Or with the real command, from another terminal in this directory. First where the
relay is, and a key for it:

  export BRIDGE_RELAY=%s
  export BRIDGE_API_KEY=%s

A pipe to a target of the device, as ssh uses it, and a tunnel to its web server: open
the address that it prints in a browser, and end it with Ctrl-C:

  echo hello | go run ./relay/cmd/bridge stdio %s echo
  go run ./relay/cmd/bridge tunnel %s web

And what a no looks like. The device does not allow ssh; nobody knows the other device:

  go run ./relay/cmd/bridge stdio %s ssh
  go run ./relay/cmd/bridge stdio pump-8 echo

What an operator can ask any node for, here the first: the bridges of all nodes, where "node"
is the owner and "via" the node that the device reached, if another:

  curl %s/bridges
`
