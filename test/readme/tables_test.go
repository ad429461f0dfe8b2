package readme_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"websocketbridge/relay/wire"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The table of codes is that of package wire, its exit codes are the command's.
func TestCodes(t *testing.T) {
	doc := text(t, readme)
	codes := map[string]string{} // Go name of a wire code → code
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+)\s+Code = "(\w+)"`).FindAllStringSubmatch(text(t, "../../relay/wire/code.go"), -1) {
		codes[m[1]] = m[2]
	}
	source := text(t, "../../relay/cmd/bridge/exit.go")
	numbers := map[string]string{} // Go name of an exit code → number
	for _, m := range regexp.MustCompile(`(?m)^\t(exit\w+)\s+= (\d+)`).FindAllStringSubmatch(source, -1) {
		numbers[m[1]] = m[2]
	}
	exits := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\twire\.(\w+):\s+(exit\w+),`).FindAllStringSubmatch(source, -1) {
		exits[codes[m[1]]] = numbers[m[2]]
	}
	if len(exits) < 10 {
		t.Fatalf("only %d exit codes are found", len(exits))
	}
	for _, o := range wire.Outcomes() {
		device := o.Code == wire.BadToken || o.Code == wire.TokenProof || o.Code == wire.BridgeGone || o.Code == wire.OwnerLost
		if o.Status == 0 || device {
			continue
		}
		closeCode := " "
		if o.Close != 0 {
			closeCode = " " + strconv.Itoa(o.Close) + " "
		}
		row := fmt.Sprintf("| `%s` | %d |%s| %s |", o.Code, o.Status, closeCode, exits[string(o.Code)])
		if !strings.Contains(doc, row) {
			t.Errorf("no row %s", row)
		}
	}
}

// Every file and folder that it names is there.
func TestPaths(t *testing.T) {
	doc := text(t, readme)
	n := 0
	for _, m := range regexp.MustCompile("`((?:relay|deviceagent|signaler|test)/[\\w./]*)`").FindAllStringSubmatch(doc, -1) {
		n++
		if _, err := os.Stat("../../" + m[1]); err != nil {
			t.Error(err)
		}
	}
	if n < 20 {
		t.Errorf("only %d paths are found", n)
	}
	for _, m := range regexp.MustCompile(`\]\(#([\w-]+)\)`).FindAllStringSubmatch(doc, -1) {
		if title := "\n## " + strings.ReplaceAll(m[1], "-", " ") + "\n"; !strings.Contains(strings.ToLower(doc), title) &&
			!strings.Contains(strings.ToLower(doc), strings.TrimPrefix(title, "\n## ")) {
			t.Errorf("no section #%s", m[1])
		}
	}
}

// The audit line is one that package audit is tested to write.
func TestAuditLine(t *testing.T) {
	line := regexp.MustCompile(`(?m)^\{"v":1,.*$`).FindString(text(t, readme))
	if line == "" || !strings.Contains(text(t, "../../relay/audit/doc.go"), "//\t"+line+"\n") {
		t.Errorf("relay/audit/doc.go does not have the line %s", line)
	}
}
