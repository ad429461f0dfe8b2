// Package readme_test runs what README.md shows.
package readme_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const readme = "../../README.md"

// A block is one fenced block of the README. The comment in front of it, which no
// reader sees, says how it is tested:
//
//	<!-- test: run, "TEXT" … -->         it ends with exit code 0 and prints each text
//	<!-- test: background "REGEXP" -->   it goes on until the next stop, once it prints that
//	<!-- test: stop -->                  ends what is in the background, before the block
//	<!-- test: clients -->               run needs OpenSSH: only with the build tag clients
//	<!-- test: ssh config -->            is ~/.ssh/config from here on
//	<!-- test: snippet NAME -->          is the code of that name in snippets_test.go
//	<!-- test: ci -->                    .ci/run has the same command
//	<!-- test: images -->                test/images runs infra/compose.yaml, whose head has the same commands
type block struct {
	line int // of its first line
	lang string
	text string
	how  string
	args []string
	stop bool
}

var (
	comment = regexp.MustCompile(`^<!-- test: ([a-z ]+?)(?: (agent|client|emulator))?(?:,? ((?:"[^"]*" ?)+))? -->$`)
	quoted  = regexp.MustCompile(`"([^"]*)"`)
)

// blocks reads the README.
func blocks(t *testing.T) []block {
	t.Helper()
	b, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	var (
		all  []block
		next block
		in   bool
	)
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case in && line == "```":
			in = false
			all, next = append(all, next), block{}
		case in:
			next.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			in = true
			next.line, next.lang = i+2, line[3:]
		case strings.HasPrefix(line, "<!--"):
			m := comment.FindStringSubmatch(line)
			switch {
			case m == nil:
				t.Fatalf("README.md:%d: %s is not understood", i+1, line)
			case m[1] == "stop":
				next.stop = true
			default:
				next.how = m[1]
				if m[2] != "" {
					next.args = []string{m[2]}
				}
				for _, q := range quoted.FindAllStringSubmatch(m[3], -1) {
					next.args = append(next.args, q[1])
				}
			}
		case line != "" && next.how != "":
			t.Fatalf("README.md:%d: a test comment without a block", i+1)
		}
	}
	if in {
		t.Fatal("README.md: the last block does not end")
	}
	return all
}

func (b block) String() string { return fmt.Sprintf("README.md:%d", b.line) }

// No command and no code stands there that nothing tests.
func TestEverythingIsTested(t *testing.T) {
	how := map[string][]string{"sh": {"run", "background", "clients", "ci", "images"}, "go": {"snippet"}, "": {"", "ssh config"}}
	met := map[string]int{}
	for _, b := range blocks(t) {
		allowed, ok := how[b.lang]
		if !ok || !contains(allowed, b.how) {
			t.Errorf("%v: a block of %q is tested as %q", b, b.lang, b.how)
		}
		met[b.how]++
	}
	for _, name := range []string{"run", "background", "clients", "ci", "images", "snippet", "ssh config"} {
		if met[name] == 0 {
			t.Errorf("no block is tested as %q", name)
		}
	}
}

// Who reads the compose file reads the same commands as here.
func TestComposeCommands(t *testing.T) {
	head := text(t, "../../infra/compose.yaml")
	for _, b := range blocks(t) {
		for _, line := range strings.Split(strings.TrimSpace(b.text), "\n") {
			if b.how == "images" && !strings.Contains(head, "\n#   "+line+"\n") {
				t.Errorf("%v: infra/compose.yaml does not say %q", b, line)
			}
		}
	}
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// The first commands are those that CI runs on a fresh clone.
func TestFirstCommands(t *testing.T) {
	all := blocks(t)
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	var first []string
	for _, b := range all {
		if b.lang == "sh" {
			first = append(first, strings.TrimSpace(b.text))
		}
		if b.how == "ci" && !strings.Contains(string(ci), strings.TrimSpace(b.text)) {
			t.Errorf("%v: .ci/run has no %q", b, b.text)
		}
	}
	if strings.Join(first[:2], "; ") != "go run ./test/quickstart; go test ./..." {
		t.Errorf("the first two commands are %q", first[:2])
	}
}
