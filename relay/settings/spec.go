package settings

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// A variable is one field of a spec and its tags.
type variable struct {
	name        string // with the prefix
	field       reflect.Value
	defaultText string
	required    bool
	secret      bool
	example     string
	desc        string
}

// names are all the variables that set the field.
func (v *variable) names() []string {
	if v.secret {
		return []string{v.name, v.name + fileSuffix}
	}
	return []string{v.name}
}

// wellFormed names need no quoting in any shell or unit file, and are exported
// Go names, which convert needs.
var wellFormed = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// collect walks spec. What is wrong with the spec itself, every fault at once,
// is an error for its author.
func collect(prefix string, spec any) ([]variable, error) {
	s := reflect.ValueOf(spec)
	if s.Kind() != reflect.Pointer || s.IsNil() || s.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("settings spec: %T is no pointer to a struct", spec)
	}
	if !wellFormed.MatchString(prefix) {
		return nil, fmt.Errorf("settings spec: prefix %q is not upper case with single underscores", prefix)
	}
	vars, faults := walk(prefix, s.Elem())
	seen := make(map[string]bool)
	for _, v := range vars {
		for _, n := range v.names() {
			if seen[n] {
				faults = append(faults, fmt.Errorf("settings spec: %s is there twice", n))
			}
			seen[n] = true
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return vars, nil
}

func walk(prefix string, s reflect.Value) (vars []variable, faults []error) {
	for i := range s.NumField() {
		f, tag := s.Type().Field(i), s.Type().Field(i).Tag
		bad := func(format string, a ...any) {
			faults = append(faults, fmt.Errorf("settings spec: %s: %w", f.Name, fmt.Errorf(format, a...)))
		}
		if !f.IsExported() {
			bad("is not exported, so it cannot be set")
			continue
		}
		name, hasName := tag.Lookup("envconfig")
		full := prefix + "_" + name
		if f.Type.Kind() == reflect.Struct && !decodesItself(f.Type) {
			inner := prefix
			if hasName {
				inner = full
			}
			innerVars, innerFaults := walk(inner, s.Field(i))
			vars, faults = append(vars, innerVars...), append(faults, innerFaults...)
			continue
		}
		v := variable{
			name: full, field: s.Field(i), defaultText: tag.Get("default"),
			example: tag.Get("example"), desc: tag.Get("desc"),
		}
		var errR, errS error
		v.required, errR = flag(tag, "required")
		v.secret, errS = flag(tag, "secret")
		switch {
		case errR != nil || errS != nil:
			bad("required and secret are true or false")
		case !wellFormed.MatchString(name):
			bad("envconfig tag %q is not upper case with single underscores", name)
		case mayBeServiceLink(full):
			bad("%s could be set by Kubernetes for a Service of that name", full)
		case !supported(f.Type):
			bad("type %s cannot be read from a variable", f.Type)
		case v.secret && (f.Type.Kind() != reflect.String || decodesItself(f.Type)):
			bad("a secret is a string: the errors of other types quote it")
		case v.secret && (v.defaultText != "" || v.example != ""):
			bad("a secret has neither default nor example")
		case v.required && v.defaultText != "":
			bad("is required and has a default")
		default:
			vars = append(vars, v)
		}
	}
	return vars, faults
}

func flag(tag reflect.StructTag, name string) (bool, error) {
	text, ok := tag.Lookup(name)
	if !ok {
		return false, nil
	}
	return strconv.ParseBool(text)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	decoders     = []reflect.Type{
		reflect.TypeFor[envconfig.Decoder](), reflect.TypeFor[envconfig.Setter](),
		reflect.TypeFor[encoding.TextUnmarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](),
	}
)

// decodesItself reports whether envconfig leaves the text to the type.
func decodesItself(t reflect.Type) bool {
	return slices.ContainsFunc(decoders, func(d reflect.Type) bool {
		return t.Implements(d) || reflect.PointerTo(t).Implements(d)
	})
}

// supported types are those that envconfig converts; it passes over others
// without a word.
func supported(t reflect.Type) bool {
	switch k := t.Kind(); {
	case decodesItself(t):
		return true
	case k == reflect.Slice:
		return supported(t.Elem()) && t.Elem().Kind() != reflect.Slice && t.Elem().Kind() != reflect.Map
	case k == reflect.Map:
		return supported(t.Key()) && supported(t.Elem()) && t.Elem().Kind() != reflect.Slice && t.Elem().Kind() != reflect.Map
	default:
		return k == reflect.String || k == reflect.Bool || k >= reflect.Int && k <= reflect.Uint64 ||
			k == reflect.Float32 || k == reflect.Float64
	}
}

// expected says what a text of type t is not, or nothing if only t can know.
func expected(t reflect.Type) string {
	switch k := t.Kind(); {
	case decodesItself(t):
		return ""
	case t == durationType:
		return "is not a duration: a number with its unit, as 500ms, 90s, 10m or 12h"
	case k == reflect.Bool:
		return "is neither true nor false"
	case k >= reflect.Int && k <= reflect.Int64:
		return fmt.Sprintf("is not a whole number that fits %d bits", t.Bits())
	case k >= reflect.Uint && k <= reflect.Uint64:
		return fmt.Sprintf("is not a whole number from 0 that fits %d bits", t.Bits())
	case k == reflect.Float32 || k == reflect.Float64:
		return "is not a number"
	case k == reflect.Map:
		return "is not a list as key:value,key:value without a : in either"
	case k == reflect.Slice:
		return "is not a list with commas, in which every item " + strings.Replace(expected(t.Elem()), "is not", "is", 1)
	}
	return ""
}

// octal: Go, and so envconfig, reads 0100 as 64. Nobody who writes a limit
// means that.
var octal = regexp.MustCompile(`^[+-]?0[0-9_]`)

// tidy takes from value what envconfig leaves in, or says what is wrong with
// it: the spaces in "a, b", and the empty item in "a,,b" or "a,".
func tidy(value reflect.Value, text string) (problem string) {
	t := value.Type()
	switch k := t.Kind(); {
	case decodesItself(t):
	case t != durationType && k >= reflect.Int && k <= reflect.Uint64:
		if octal.MatchString(strings.TrimSpace(text)) {
			return "starts with 0, which would make it octal"
		}
	case k == reflect.Slice && t.Elem().Kind() == reflect.String && !decodesItself(t.Elem()):
		for i := range value.Len() {
			item := strings.TrimSpace(value.Index(i).String())
			if item == "" {
				return "has an empty item"
			}
			value.Index(i).SetString(item)
		}
	}
	return ""
}

// Pairs is a map for values that have a colon in them, such as host:port, which
// envconfig's own maps refuse: name=value,name=value. The first = separates.
type Pairs map[string]string

// Decode makes Pairs an envconfig.Decoder.
func (p *Pairs) Decode(text string) error {
	out := make(Pairs)
	for item := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(item) == "" {
			if strings.TrimSpace(text) == "" {
				break
			}
			return errors.New("has an empty item")
		}
		name, value, ok := strings.Cut(item, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" {
			return errors.New("is not name=value,name=value")
		}
		if _, dup := out[name]; dup {
			return fmt.Errorf("has %s twice", name)
		}
		out[name] = value
	}
	*p = out
	return nil
}
