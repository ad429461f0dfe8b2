package main

import (
	"runtime"

	"github.com/spf13/cobra"

	envsettings "websocketbridge/relay/settings"
	"websocketbridge/relay/wire"
)

func newVersion(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the protocols it speaks",
		Args:  args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := envsettings.Version()
			if ui.json {
				ui.event(versionEvent{"version", v, wire.Version, wire.SessionV1, runtime.Version(), runtime.GOOS, runtime.GOARCH})
				return nil
			}
			ui.printf("bridge %s\nprotocol %d, %s\n%s %s/%s", v, wire.Version, wire.SessionV1, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

type versionEvent struct {
	Event    string `json:"event"` // "version"
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
	Session  string `json:"session"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}
