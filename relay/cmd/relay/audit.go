package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"websocketbridge/relay/audit"
	"websocketbridge/relay/cluster"
	"websocketbridge/relay/settings"
)

// auditSettings are RELAY_AUDIT and what begins with it.
type auditSettings struct {
	To      string `envconfig:"AUDIT" example:"/var/log/relay/audit.jsonl" desc:"file to which who did what is appended, a line of JSON for each event; or stdout; default: nowhere"`
	Failure string `envconfig:"AUDIT_FAILURE" default:"closed" desc:"when lines cannot be written; closed: no bridge is made; open: bridges go on without"`
	Sync    bool   `envconfig:"AUDIT_SYNC" default:"true" desc:"a line is on the disk (fsync) before its bridge opens; false: the kernel has it"`
	MaxSize int64  `envconfig:"AUDIT_MAX_SIZE" default:"104857600" desc:"bytes from which on the file is renamed, with the time behind its name; 0: never"`
	Keep    int    `envconfig:"AUDIT_KEEP" default:"0" desc:"renamed files to keep, the newest; 0: all"`
}

// Values of RELAY_AUDIT and RELAY_AUDIT_FAILURE.
const (
	auditStdout = "stdout"
	auditClosed = "closed"
	auditOpen   = "open"
)

func (s auditSettings) check(bad func(name, format string, args ...any)) {
	if s.Failure != auditClosed && s.Failure != auditOpen {
		bad("AUDIT_FAILURE", "%q is neither closed nor open", s.Failure)
	}
	if s.MaxSize < 0 {
		bad("AUDIT_MAX_SIZE", "%d is negative", s.MaxSize)
	}
	if s.Keep < 0 {
		bad("AUDIT_KEEP", "%d is negative", s.Keep)
	}
}

// open returns nil where there is no audit log.
func (s auditSettings) open(out io.Writer, node *cluster.Config, log *slog.Logger) (*audit.Log, error) {
	if s.To == "" {
		return nil, nil
	}
	cfg := audit.Config{
		MaxSize: s.MaxSize, Keep: s.Keep, Sync: s.Sync, FailOpen: s.Failure == auditOpen, Version: settings.Version(), Logger: log,
	}
	if s.To == auditStdout {
		cfg.Writer = out
	} else {
		cfg.Path = s.To
	}
	if node != nil {
		cfg.Node = node.Address
	}
	host, _ := os.Hostname() // without one, the instance has to do
	cfg.Node = cmp.Or(cfg.Node, host)
	l, err := audit.New(cfg)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; make its folder", err)
		}
		return nil, fmt.Errorf("RELAY_AUDIT: %w", err)
	}
	return l, nil
}

// auditReloads has a line for whatever is put in force from files.
func auditReloads(l *audit.Log, all []*watched) {
	for _, w := range all {
		apply := w.apply
		w.apply = func(texts []string) ([]any, error) {
			inForce, err := apply(texts)
			if err == nil {
				l.Record(context.Background(), audit.Record{Event: audit.ConfigReloaded, Settings: w.settings})
			}
			return inForce, err
		}
	}
}

// reopenAudit heeds logrotate until ctx ends.
func reopenAudit(ctx context.Context, l *audit.Log, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			l.Reopen()
		}
	}
}
