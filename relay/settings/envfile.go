package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A Variable is one of an environment.
type Variable struct{ Name, Value string }

const blanks = " \t\r" // systemd knows no others

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ReadEnvFile reads a file of settings. See ParseEnv. Errors quote names and no values.
func ReadEnvFile(path string) ([]Variable, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSecret {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxSecret)
	}
	vars, err := ParseEnv(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return vars, nil
}

// ParseEnv reads lines NAME=value. It takes of what systemd takes in an EnvironmentFile
// (systemd.exec(5)) that which can be taken in one way only, so that a file means
// the same under every service manager:
//
//	# a comment, also with ;
//	NAME=value until the end of the line, less spaces around it; # and " inside are themselves
//	NAME='value' or NAME="value" with nothing behind it
//
// A backslash is itself in ” only; elsewhere, where systemd would take it for an
// escape, it is a fault, as are a line that goes on behind a quote, and a name that is there twice. All
// faults are reported at once, by line.
func ParseEnv(text string) ([]Variable, error) {
	var (
		vars []Variable
		errs []error
		seen = map[string]bool{}
	)
	text = strings.TrimPrefix(text, "\uFEFF") // of an editor on Windows
	for i, line := range strings.Split(text, "\n") {
		line = strings.Trim(line, blanks)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		v, err := parseEnvLine(line)
		if err == nil && seen[v.Name] {
			err = fmt.Errorf("%s is there already", v.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", i+1, err))
			continue
		}
		seen[v.Name] = true
		vars = append(vars, v)
	}
	return vars, errors.Join(errs...)
}

func parseEnvLine(line string) (Variable, error) {
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.Trim(name, blanks), strings.Trim(value, blanks)
	switch {
	case !ok:
		return Variable{}, errors.New("is not NAME=value")
	case !variableName.MatchString(name):
		return Variable{}, errors.New("what stands before = is no name of a variable; is there an export before it?")
	case !utf8.ValidString(value):
		return Variable{}, fmt.Errorf("%s is not valid UTF-8", name)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return Variable{}, fmt.Errorf("%s has a control character", name)
	}
	quote := ""
	if value != "" && (value[0] == '\'' || value[0] == '"') {
		quote = value[:1]
		inner, rest, closed := strings.Cut(value[1:], quote)
		if !closed || rest != "" {
			return Variable{}, fmt.Errorf("%s begins with %s and does not end with the next one", name, quote)
		}
		value = inner
	}
	if quote != "'" && strings.Contains(value, `\`) {
		return Variable{}, fmt.Errorf(`%s has a \, which is itself only between ''`, name)
	}
	if quote == `"` && strings.ContainsAny(value, "$`") { // systemd leaves them, a shell would not
		return Variable{}, fmt.Errorf("%s has a $ or ` between \"\"; write '' instead", name)
	}
	return Variable{name, value}, nil
}

// FormatEnv writes a variable as ParseEnv reads it.
func FormatEnv(v Variable) (string, error) {
	for _, text := range []string{v.Name + "=" + v.Value, v.Name + "='" + v.Value + "'", v.Name + `="` + v.Value + `"`} {
		if got, err := parseEnvLine(text); err == nil && got == v && !strings.Contains(text, "\n") {
			return text, nil
		}
	}
	return "", fmt.Errorf("%s has a value that cannot be in a file of settings", v.Name)
}
