package test_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A row of the table that a program's --help prints.
	settingRow = regexp.MustCompile(`(?m)^((?:RELAY|AGENT)_[A-Z0-9_]+)\s.*$`)
	// What only describes names, as RELAY_* or RELAY_[A-Z]+, does not match.
	settingUse = regexp.MustCompile(`\b(?:RELAY|AGENT|BRIDGE)_[A-Z0-9]+(?:_[A-Z0-9]+)*\b`)
	bridgeName = regexp.MustCompile(`\bBRIDGE_[A-Z0-9_]+\b`)
)

// TestInfraSettings wants each setting that a file below infra/ names to be one of the
// programs: they refuse to start with a name that they do not know, and no checker of
// Bicep, Terraform or Kubernetes can tell.
func TestInfraSettings(t *testing.T) {
	known := map[string]bool{"RELAY_NAME": true, "AGENT_NAME": true, "BRIDGE_NAME": true} // stand for any
	for _, help := range []string{"../relay/cmd/relay/testdata/help.txt", "../deviceagent/cmd/deviceagent/testdata/help.txt"} {
		rows := settingRow.FindAllStringSubmatch(read(t, help), -1)
		if len(rows) < 10 {
			t.Fatalf("%s has %d settings; has its form changed?", help, len(rows))
		}
		for _, row := range rows {
			known[row[1]] = true
			if strings.Contains(row[0], "(secret; or ") {
				known[row[1]+"_FILE"] = true
			}
		}
	}
	for _, name := range bridgeName.FindAllString(read(t, "../relay/cmd/bridge/settings.go"), -1) {
		known[name] = true
	}

	files, uses := 0, 0
	err := filepath.WalkDir("../infra", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".terraform" {
				return filepath.SkipDir
			}
			return err
		}
		files++
		for i, line := range strings.Split(read(t, path), "\n") {
			for _, at := range settingUse.FindAllStringIndex(line, -1) {
				if strings.HasPrefix(line[at[1]:], "_") || strings.HasPrefix(line[at[1]:], "*") {
					continue // the beginning of several names
				}
				uses++
				if name := line[at[0]:at[1]]; !known[name] {
					t.Errorf("%s:%d: %s is no setting; a program that is given it does not start", path, i+1, name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 || uses == 0 {
		t.Fatalf("%d settings in %d files of infra/; this test looks in the wrong place", uses, files)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "" // a picture
	}
	return string(b)
}
