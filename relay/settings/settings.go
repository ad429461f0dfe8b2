// Package settings reads the settings of a main from its environment.
//
// A spec is a struct whose fields have tags:
//
//	Drain time.Duration `envconfig:"DRAIN" default:"10m" desc:"for open bridges after SIGTERM"`
//
//	envconfig  the name behind the prefix; required, so that a name can be found by searching for it
//	default    used if the variable is not set
//	required   "true": it must be set, and not be empty
//	secret     "true": never shown, and NAME_FILE may name a file that holds it; strings only
//	example    shown where somebody has to write a value
//	desc       for Usage
//
// A struct in a spec adds its own envconfig tag to the prefix, if it has one,
// and nothing otherwise. Types are those of envconfig and Pairs.
//
// # What is set
//
// A variable that is set to nothing is set: that is how somebody clears the
// default of a string or a list. Where nothing is no value, for a number, a
// secret or a required variable, it is a fault rather than a guess.
//
// # Why
//
// Why every fault at once: each attempt to start a pod or a unit takes a person
// a minute.
//
// Why unknown variables are faults: RELAY_MAX_BRIGDES=10 that silently means
// ten thousand is found in an incident.
//
// Why not envconfig.Process on the whole spec: it stops at the first fault, it
// quotes values in its errors, and if RELAY_HOST is not set it takes HOST, which
// is somebody else's variable. Each field is given to it alone, as the only
// field of a struct made for it, with the variable's full name as the field's
// name. It still does all the reading and converting, and the environment of
// the process is never changed.
package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kelseyhightower/envconfig"
)

const (
	fileSuffix = "_FILE"
	// maxSecret is in bytes: many certificates, and far from a wrong path.
	maxSecret = 1 << 20
	// maxShown is how much of a value an error quotes, in bytes.
	maxShown = 60
)

// A Fault is one variable that is wrong.
type Fault struct {
	Name    string // of the variable
	Problem string // what is wrong, and what was expected; never a secret
}

func (f Fault) String() string { return f.Name + ": " + f.Problem }

// Faults are everything that is wrong with the environment, in the order of
// the spec, unknown variables last. Load's error is one, unless the spec itself
// is wrong.
type Faults []Fault

func (f Faults) Error() string {
	if len(f) == 1 {
		return f[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d settings are wrong:", len(f))
	for _, fault := range f {
		b.WriteString("\n  " + fault.String())
	}
	return b.String()
}

// Load fills spec, a pointer to a struct, from the variables that start with
// prefix and an underscore. Fields whose variable is wrong stay as they are; all
// others are filled even then, so that a main can look for faults of its own
// and report everything at once.
func Load(prefix string, spec any) error {
	vars, err := collect(prefix, spec)
	if err != nil {
		return err
	}
	var (
		faults Faults
		values = make([]reflect.Value, len(vars))
	)
	for i := range vars {
		v := &vars[i]
		value, fault := v.load()
		if fault != (Fault{}) {
			faults = append(faults, fault)
		}
		values[i] = value
	}
	faults = append(faults, unknown(prefix, vars, os.Environ())...)
	for i, value := range values {
		if value.IsValid() {
			vars[i].field.Set(value)
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// load returns the variable's value, or none if the field is to stay as it is,
// or what is wrong.
func (v *variable) load() (reflect.Value, Fault) {
	text, set := os.LookupEnv(v.name)
	if v.secret {
		path, fileSet := os.LookupEnv(v.name + fileSuffix)
		switch {
		case set && fileSet:
			return reflect.Value{}, Fault{v.name, fmt.Sprintf("is set, and %s%s too; keep one", v.name, fileSuffix)}
		case fileSet:
			secret, err := ReadSecret(path)
			if err != nil {
				return reflect.Value{}, Fault{v.name + fileSuffix, err.Error()}
			}
			// Not by way of envconfig: it would have to find the secret in the
			// environment, which child processes and core dumps get to see.
			value := reflect.New(v.field.Type()).Elem()
			value.SetString(secret)
			return value, Fault{}
		}
	}
	problem := ""
	switch {
	case !set && v.required:
		problem = v.missing()
	case !set && v.defaultText == "":
		return reflect.Value{}, Fault{}
	case set && text == "" && v.required:
		problem = "is set, but empty" + v.forExample()
	case set && text == "" && v.secret:
		problem = "is set, but empty; unset it if it is not needed"
	case set && !utf8.ValidString(text):
		problem = "is not valid UTF-8"
	}
	if problem != "" {
		return reflect.Value{}, Fault{v.name, problem}
	}
	value, problem := v.convert(text, set)
	if problem != "" {
		return reflect.Value{}, Fault{v.name, problem}
	}
	return value, Fault{}
}

// ReadSecret reads a file as Load does for a variable that ends in _FILE, for who wants
// to see whether it has changed. Its path is no secret, what it holds is.
func ReadSecret(path string) (string, error) {
	if path == "" {
		return "", errors.New("is set, but empty; unset it if it is not needed")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	// Editors and echo end a file with a line end; no secret ends with one.
	text := strings.TrimRight(string(b), "\r\n")
	switch {
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s has more than %d bytes", path, maxSecret)
	case text == "":
		return "", fmt.Errorf("%s is empty", path)
	case !utf8.ValidString(text):
		return "", fmt.Errorf("%s is not valid UTF-8", path)
	}
	return text, nil
}

func (v *variable) missing() string {
	p := "is missing"
	if v.desc != "" {
		p += ": " + v.desc
	}
	if v.secret {
		p += fmt.Sprintf("; set it, or %s%s to a file that holds it", v.name, fileSuffix)
	}
	return p + v.forExample()
}

func (v *variable) forExample() string {
	if v.example == "" {
		return ""
	}
	return fmt.Sprintf("; for example %s=%s", v.name, v.example)
}

// convert lets envconfig read and convert this one variable. See the package
// comment. Text is what it will find there, or the default if set is false.
func (v *variable) convert(text string, set bool) (value reflect.Value, problem string) {
	if !set {
		text = v.defaultText
	}
	tag := reflect.StructTag(fmt.Sprintf("default:%q", v.defaultText))
	one := reflect.New(reflect.StructOf([]reflect.StructField{{Name: v.name, Type: v.field.Type(), Tag: tag}}))
	if err := envconfig.Process("", one.Interface()); err != nil {
		if v.secret {
			return value, "cannot be read" // unreachable: secrets are strings
		}
		// Only the cause: the ParseError around it quotes the value at any length.
		var parse *envconfig.ParseError
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return value, v.notA(text, set, expected(v.field.Type()), err)
	}
	value = one.Elem().Field(0)
	if problem := tidy(value, text); problem != "" {
		return reflect.Value{}, v.notA(text, set, problem, nil)
	}
	return value, ""
}

// notA says what is wrong with a value that is no secret.
func (v *variable) notA(text string, set bool, want string, err error) string {
	p := fmt.Sprintf("%q ", shorten(text))
	if !set {
		p = "the default, " + p // a bug of ours, but let it be a readable one
	}
	switch {
	case want != "":
		p += want
	case err != nil:
		p += "is wrong: " + shorten(err.Error())
	}
	return p + v.forExample()
}

func shorten(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxShown {
		return s
	}
	n := maxShown
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// unknown finds variables that start with the prefix and belong to no field.
func unknown(prefix string, vars []variable, environ []string) Faults {
	known := make(map[string]bool)
	var names []string
	for _, v := range vars {
		for _, n := range v.names() {
			known[n] = true
			names = append(names, n)
		}
	}
	var faults Faults
	for _, env := range environ {
		name, value, _ := strings.Cut(env, "=")
		if !strings.HasPrefix(name, prefix+"_") || known[name] || isServiceLink(name, value) {
			continue
		}
		problem := "is unknown"
		if base, ok := strings.CutSuffix(name, fileSuffix); ok && known[base] {
			problem += fmt.Sprintf("; %s is no secret, so it has no %s form", base, fileSuffix)
		} else if near := nearest(prefix+"_", name, names); near != "" {
			problem += fmt.Sprintf("; did you mean %s?", near)
		}
		if !wellFormed.MatchString(name) {
			name = strconv.Quote(shorten(name)) // whatever it holds, the terminal survives it
		}
		faults = append(faults, Fault{name, problem})
	}
	slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.Name, b.Name) })
	return faults
}
