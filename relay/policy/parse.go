package policy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"websocketbridge/relay/auth"
)

// Limits of a file. Each glob in it is matched at most once for each decision, so its
// size bounds the time of one.
const (
	MaxFile  = 256 << 10 // bytes
	maxItems = 1000      // of one list, or of one mapping
	maxName  = 64        // bytes, of a rule or group
	maxClaim = 256       // bytes, of a claim's name or value

	maxFaults = 20 // worth reading; after that it is the wrong file
)

// methods are how a principal may have been authenticated.
var methods = []string{auth.MethodAPIKey, auth.MethodOIDC, auth.MethodCert, auth.MethodSigned, auth.MethodNone}

// A fault is one thing that is wrong with a file.
type fault struct {
	line int
	text string
}

func (f fault) Error() string { return fmt.Sprintf("line %d: %s", f.line, f.text) }

// A reader takes a file apart and collects its faults.
type reader struct {
	faults []fault
	groups map[string]int // index of each
	set    ruleSet
}

func (r *reader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fault{n.Line, fmt.Sprintf(format, args...)})
}

func parse(text string) (*ruleSet, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("more than %d bytes", MaxFile)
	}
	top, err := parseYAML(text)
	if err != nil {
		return nil, err
	}
	r := &reader{groups: make(map[string]int)}
	r.checkPlain(top)
	if len(r.faults) == 0 { // what an alias stands for is not looked at
		r.file(top)
	}
	if len(r.faults) == 0 {
		return &r.set, nil
	}
	slices.SortStableFunc(r.faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, f := range r.faults {
		if i == maxFaults {
			errs = append(errs, errors.New("and so on"))
			break
		}
		errs = append(errs, f)
	}
	return nil, errors.Join(errs...)
}

// parseYAML returns the one document of a file.
func parseYAML(text string) (*yaml.Node, error) {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(text))
	switch err := dec.Decode(&doc); {
	case err == io.EOF:
		return nil, errors.New("the file is empty; it would let nobody in")
	case err != nil:
		return nil, notYAML(err)
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, fault{more.Line, "another document begins; there can be one only"}
	case err != io.EOF:
		return nil, notYAML(err)
	}
	return doc.Content[0], nil
}

// quoting are the parser's words for what is most likely a glob without quotes.
var quoting = regexp.MustCompile(`unknown anchor|alphabetic or numeric character|cannot start any token|block sequence entries are not allowed`)

func notYAML(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	hint := ""
	if quoting.MatchString(text) {
		hint = `; a glob that begins with * or ? or @, and "-", need quotes`
	}
	return fmt.Errorf("%.200s%s", strings.ToValidUTF8(text, "?"), hint)
}

// checkPlain finds what YAML can do and a policy has no use for.
func (r *reader) checkPlain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		r.fault(n, "is an alias (*%.40s), which a policy cannot have; a glob that begins with * needs quotes", n.Value)
	case n.Anchor != "":
		r.fault(n, "has an anchor (&%.40s), which a policy cannot have; use a group", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		r.fault(n, "has a tag, which a policy cannot have")
	}
	for _, c := range n.Content {
		r.checkPlain(c)
	}
}

// An entry is a key of a mapping with its value.
type entry struct {
	name  string
	key   *yaml.Node
	value *yaml.Node
}

// mapping returns the entries of n. Names, if there are any, are the only ones allowed.
func (r *reader) mapping(n *yaml.Node, what string, names ...string) (entries []entry, ok bool) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s is no mapping (key: value)", what)
		return nil, false
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := entry{n.Content[i].Value, n.Content[i], n.Content[i+1]}
		switch line, twice := lines[e.name]; {
		case e.key.Kind != yaml.ScalarNode:
			r.fault(e.key, "%s has a key that is no word", what)
		case twice:
			r.fault(e.key, "%s has %.40q in line %d already", what, e.name, line)
		case len(names) > 0 && !slices.Contains(names, e.name):
			r.fault(e.key, "%s has an unknown key %.40q; there are %s", what, e.name, strings.Join(names, ", "))
		default:
			lines[e.name] = e.key.Line
			entries = append(entries, e)
			continue
		}
		lines[e.name] = e.key.Line
	}
	if len(entries) > maxItems {
		r.fault(n, "%s has %d entries; %d are allowed", what, len(entries), maxItems)
		return nil, false
	}
	return entries, true
}

// list returns the items of n, of which there is at least one.
func (r *reader) list(n *yaml.Node, what string) []*yaml.Node {
	switch {
	case n.Kind != yaml.SequenceNode:
		r.fault(n, "%s is no list; write it as [one, two]", what)
	case len(n.Content) == 0:
		r.fault(n, `%s is empty; ["*"] is everything`, what)
	case len(n.Content) > maxItems:
		r.fault(n, "%s has %d items; %d are allowed", what, len(n.Content), maxItems)
	default:
		return n.Content
	}
	return nil
}

// text returns a scalar as the file has it, whatever YAML takes it for: in a list of
// countries, no is Norway.
func (r *reader) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		r.fault(n, "%s is no text", what)
		return "", false
	}
	return n.Value, true
}

func (r *reader) file(n *yaml.Node) {
	entries, ok := r.mapping(n, "the file", "version", "groups", "rules")
	if !ok {
		return
	}
	var version, groups, rules *yaml.Node
	for _, e := range entries {
		switch e.name {
		case "version":
			version = e.value
		case "groups":
			groups = e.value
		case "rules":
			rules = e.value
		}
	}
	switch {
	case version == nil:
		r.fault(n, "version is missing; write version: 1")
	case version.Value != "1":
		r.fault(version, "version is not 1, which is the only one that this relay knows")
	}
	if groups != nil {
		r.readGroups(groups)
	}
	if rules == nil {
		r.fault(n, "rules are missing; without one nobody could do anything")
		return
	}
	names := make(map[string]int)
	for i, item := range r.list(rules, "rules") {
		r.set.rules = append(r.set.rules, r.rule(item, i+1, names))
	}
}

// checkName is for names of rules and groups, which are in logs and metrics.
func (r *reader) checkName(n *yaml.Node, what, name string) {
	if len(name) > maxName {
		r.fault(n, "%s has %d bytes; %d are allowed", what, len(name), maxName)
		return
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || i > 0 && (c == '-' || c == '_' || c == '.')) {
			r.fault(n, "%s has a character other than A-Z a-z 0-9, and behind the first . _ -", what)
			return
		}
	}
}

func (r *reader) readGroups(n *yaml.Node) {
	entries, _ := r.mapping(n, "groups")
	for _, e := range entries {
		if name, ok := r.text(e.key, "a group's name"); ok {
			r.checkName(e.key, "a group's name", name)
			r.groups[name] = len(r.set.groups)
			r.set.groups = append(r.set.groups, group{name, r.globs(e.value, fmt.Sprintf("group %.40q", name), false)})
		}
	}
}

// globs reads a list of them. With dash, the item - is the default target.
func (r *reader) globs(n *yaml.Node, what string, dash bool) (globs []auth.Glob) {
	for _, item := range r.list(n, what) {
		if g, ok := r.glob(item, what, dash); ok {
			globs = append(globs, g)
		}
	}
	return globs
}

func (r *reader) glob(n *yaml.Node, what string, dash bool) (auth.Glob, bool) {
	if dash && n.Kind == yaml.SequenceNode { // - - in a block
		r.fault(n, `%s: an item is a list; the default target is "-", in quotes`, what)
		return auth.Glob{}, false
	}
	text, ok := r.text(n, "an item of "+what)
	if !ok {
		return auth.Glob{}, false
	}
	if dash && text == "-" {
		return auth.Glob{}, true
	}
	g, err := auth.ParseGlob(text)
	if err != nil {
		r.fault(n, "%s: the glob %.40q %v", what, text, err)
	}
	return g, err == nil
}
