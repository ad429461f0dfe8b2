package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"websocketbridge/relay/auth"
	"websocketbridge/relay/policy"
)

// Every fault that a file can have, with the line that it is in.
func TestFaults(t *testing.T) {
	const head = "version: 1\nrules:\n"
	good := func(change, to string) string { return strings.Replace(rule(), change, to, 1) }
	for name, tt := range map[string]struct{ text, want string }{
		"empty":                 {"", "the file is empty; it would let nobody in"},
		"a comment only":        {"# nothing\n", "the file is empty; it would let nobody in"},
		"a word":                {"policy", "line 1: the file is no mapping"},
		"a list":                {"- a", "line 1: the file is no mapping"},
		"null":                  {"~", "line 1: the file is no mapping"},
		"too long":              {"#" + strings.Repeat("x", policy.MaxFile), "more than 262144 bytes"},
		"not YAML":              {"version: 1\nrules: [", "line 2: did not find expected node content"},
		"a tab":                 {"version: 1\nrules:\n\t- name: a", "line 3: found character that cannot start any token"},
		"not UTF-8":             {"version: \xff", "invalid leading UTF-8 octet"},
		"two documents":         {rule() + "---\nversion: 1\n", "line 8: another document begins"},
		"no version":            {"rules:\n- {name: a, who: [a], devices: [a], targets: [a]}", "line 1: version is missing; write version: 1"},
		"another version":       {good("1", "2"), "line 1: version is not 1"},
		"version is a list":     {good("version: 1", "version: [1]"), "line 1: version is not 1"},
		"no rules":              {"version: 1", "line 1: rules are missing"},
		"rules is null":         {"version: 1\nrules:", "line 2: rules is no list"},
		"rules is empty":        {"version: 1\nrules: []", "line 2: rules is empty"},
		"too many rules":        {head + strings.Repeat("- a\n", 1001), "line 3: rules has 1001 items; 1000 are allowed"},
		"an unknown key":        {rule() + "rule: []", `line 8: the file has an unknown key "rule"; there are version, groups, rules`},
		"a key twice":           {rule() + "version: 1", `line 8: the file has "version" in line 1 already`},
		"a key that is a list":  {"[a]: b", "line 1: the file has a key that is no word"},
		"a merge":               {rule("<<: {deny: true}"), `line 7: rule "all" has an unknown key "<<"`},
		"a rule is a word":      {head + "- all", "line 3: rule 1 is no mapping"},
		"an empty rule":         {head + "- {}", "line 3: rule 1: name is missing"},
		"no who":                {good("who: [ops]", "deny: true"), `line 3: rule "all": who is missing`},
		"no devices":            {good(`devices: ["*"]`, "deny: false"), `line 3: rule "all": devices is missing`},
		"no targets":            {good(`targets: ["*"]`, "deny: false"), `line 3: rule "all": targets is missing`},
		"a name with a space":   {good("name: all", "name: all of it"), `the name of rule "all of it" has a character other than`},
		"a name with a dash":    {good("name: all", "name: -all"), "has a character other than"},
		"a long name":           {good("name: all", "name: "+strings.Repeat("a", 65)), "has 65 bytes; 64 are allowed"},
		"a null name":           {good("name: all", "name:"), "line 3: the name of rule 1 is no text"},
		"deny perhaps":          {rule("deny: yes"), `line 7: rule "all": deny is neither true nor false`},
		"deny with caps":        {rule("deny: true", "caps: {bridges: 1}"), `line 8: rule "all": a rule that denies has no caps`},
		"who is a word":         {good("[ops]", "ops"), `line 4: rule "all": who is no list; write it as [one, two]`},
		"who is empty":          {good("[ops]", "[]"), `line 4: rule "all": who is empty; ["*"] is everything`},
		"who is null":           {good("[ops]", "[~]"), `line 4: an item of rule "all": who is no text`},
		"who is nothing":        {good("[ops]", "[{}]"), `line 4: rule "all": who: an item is empty`},
		"who is a list":         {good("[ops]", "[[ops]]"), `line 4: an item of rule "all": who is no mapping`},
		"who by a bad glob":     {good("[ops]", `["a\\"]`), `line 4: rule "all": who: the glob "a\\" ends with a single \`},
		"who by a bad name":     {good("[ops]", `[{name: "a b"}]`), `line 4: rule "all": who: name: the glob "a b" has a space`},
		"who by a bad method":   {good("[ops]", "[{method: magic}]"), `line 4: rule "all": who: method "magic" is none of api-key, oidc, client-cert, signed-url, none`},
		"claim without is":      {good("[ops]", "[{claim: a}]"), `line 4: rule "all": who: claim and is need each other`},
		"is without claim":      {good("[ops]", "[{is: a}]"), `line 4: rule "all": who: claim and is need each other`},
		"a claim is a list":     {good("[ops]", "[{claim: a, is: [b]}]"), `line 4: rule "all": who: is is no text`},
		"a long claim":          {good("[ops]", "[{claim: a, is: "+strings.Repeat("b", 257)+"}]"), `line 4: rule "all": who: is has 257 bytes; 256 are allowed`},
		"an unknown key of who": {good("[ops]", "[{claims: a}]"), `unknown key "claims"; there are name, method, claim, is`},
		"a group as a word":     {good(`devices: ["*"]`, "devices: [@pumps]"), "line 5: found character that cannot start any token; a glob that begins with"},
		"a star as a word":      {good(`devices: ["*"]`, "devices: [*]"), `a glob that begins with * or ? or @, and "-", need quotes`},
		"a glob as an alias":    {good(`devices: ["*"]`, "devices: [*pump]"), `unknown anchor 'pump' referenced; a glob that begins with`},
		"a dash as a word":      {good(`targets: ["*"]`, "targets:\n    - -"), `line 7: rule "all": targets: an item is a list; the default target is "-", in quotes`},
		"a dash for devices":    {good(`devices: ["*"]`, `devices: [{group: "-"}]`), `there is no group "-"`},
		"a group that is not":   {good(`devices: ["*"]`, "devices: [{group: pumps}]"), `line 5: rule "all": devices: there is no group "pumps"`},
		"a group of nothing":    {good(`devices: ["*"]`, "devices: [{}]"), `line 5: rule "all": devices: an item is empty`},
		"another mapping":       {good(`devices: ["*"]`, "devices: [{tag: a}]"), `unknown key "tag"; there are group`},
		"groups is a list":      {"groups: []\n" + rule(), "line 1: groups is no mapping"},
		"a group's name":        {"groups: {\"a b\": [a]}\n" + rule(), "line 1: a group's name has a character other than"},
		"an empty group":        {"groups: {a: []}\n" + rule(), `line 1: group "a" is empty`},
		"a group twice":         {"groups:\n  a: [a]\n  a: [b]\n" + rule(), `line 3: groups has "a" in line 2 already`},
		"a group in a group":    {"groups: {a: [b], c: [{group: a}]}\n" + rule(), `line 1: an item of group "c" is no text`},
		"an anchor":             {good("[ops]", "&all [ops]"), "line 4: has an anchor (&all), which a policy cannot have; use a group"},
		"an alias":              {good("[ops]", "&all [ops]") + "  - *all\n", "line 8: is an alias (*all), which a policy cannot have"},
		"a tag":                 {good("[ops]", "!!set [ops]"), "line 4: has a tag"},
		"a tag of one's own":    {good("[ops]", "[!me ops]"), "line 4: has a tag"},
		"hours is a word":       {rule("hours: always"), `line 7: rule "all": hours is no mapping`},
		"hours is empty":        {rule("hours: []"), `line 7: rule "all": hours is empty`},
		"hours says nothing":    {rule("hours: {zone: UTC}"), `line 7: rule "all": hours: it says neither days nor from and to`},
		"hours without a zone":  {rule("hours: {days: mon}"), `line 7: rule "all": hours: zone is missing`},
		"from without to":       {rule(`hours: {from: "07:00", zone: UTC}`), `line 7: rule "all": hours: from and to need each other`},
		"from is to":            {rule(`hours: {from: "07:00", to: "07:00", zone: UTC}`), "from is to; leave both out"},
		"from 24:00":            {rule(`hours: {from: "24:00", to: "07:00", zone: UTC}`), `from: "24:00" is no time`},
		"to is a number":        {rule(`hours: {from: "07:00", to: 7, zone: UTC}`), `to: "7" is no time`},
		"from is a list":        {rule(`hours: {from: [1], to: "07:00", zone: UTC}`), `from: "" is no time`},
		"an unknown day":        {rule("hours: {days: [mon, monday], zone: UTC}"), `line 7: rule "all": hours: days: "monday" is no day or range`},
		"a day twice":           {rule("hours: {days: [mon-wed, tue], zone: UTC}"), `hours: days: tue is there twice`},
		"no days":               {rule("hours: {days: [], zone: UTC}"), `hours: days is empty`},
		"a day is null":         {rule("hours: {days: [~], zone: UTC}"), `an item of rule "all": hours: days is no text`},
		"the local zone":        {rule("hours: {days: mon, zone: Local}"), `"Local" is no time zone`},
		"a zone elsewhere":      {rule("hours: {days: mon, zone: ../../etc/passwd}"), `"../../etc/passwd" is no time zone`},
		"too many hours":        {rule("hours: [" + strings.Repeat("{days: mon, zone: UTC}, ", 17) + "]"), "hours has 17 items; 16 are allowed"},
		"caps is a word":        {rule("caps: none"), `line 7: rule "all": caps is no mapping`},
		"no caps":               {rule("caps: {}"), `line 7: rule "all": caps: it has none`},
		"an unknown cap":        {rule("caps: {bytes: 1}"), `line 7: rule "all": caps has an unknown key "bytes"`},
		"a cap is null":         {rule("caps: {bridges: }"), `line 7: rule "all": caps: bridges is no text`},
		"a cap is negative":     {rule("caps: {connects_per_minute: -1}"), `connects_per_minute: "-1" is no number from 1 to 1000000`},
		"a duration is short":   {rule("caps: {idle: 5ms}"), `idle: "5ms" is no duration of at least 1s`},
		"a duration is a count": {rule("caps: {max_duration: 30}"), `max_duration: "30" is no duration of at least 1s`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// What looks like a number, a time or a yes to YAML is a name all the same.
func TestPlainWords(t *testing.T) {
	p := mustParse(t, `version: 1
rules:
  - name: 007
    who: [no, 0x10, 2026-01-01]
    devices: [1e3, true]
    targets: [22]
    hours: {days: fri-mon, from: 07:00, to: 24:00, zone: UTC}
`)
	d := p.Decide(key("no"), "1e3", []string{"22"}, saturday)
	if !d.Allowed || d.Rules[0] != "007" || !d.Until.Equal(at("2026-06-07T00:00:00Z")) {
		t.Errorf("%+v", d)
	}
	for _, name := range []string{"0x10", "2026-01-01"} {
		if d := p.Decide(key(name), "true", []string{"22"}, saturday); !d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	_, err := policy.Parse("version: 1\nrules:\n" + strings.Repeat("- a\n", 900))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 21 || lines[20] != "and so on" {
		t.Errorf("%d lines, the last is %s", len(lines), lines[len(lines)-1])
	}
	_, err = policy.Parse("version: 1\nrules:\n- name: " + strings.Repeat("a", 50_000) + "\n  who: [\"" + strings.Repeat("\\\\b", 50_000) + "\"]\n")
	if len(err.Error()) > 4<<10 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// What is meant to burn time or memory is refused, soon.
func TestBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	for name, text := range map[string]string{
		"a billion laughs":    laughs.String(),
		"an alias of its own": "a: &a [*a]\n",
		"deep lists":          strings.Repeat("[", policy.MaxFile-1),
		"deep mappings":       strings.Repeat("{a: ", 60_000),
		"deep blocks":         strings.Repeat("- ", policy.MaxFile/2),
		"many comments":       strings.Repeat("#\n", policy.MaxFile/2-10) + "a: 1",
		"many documents":      strings.Repeat("---\n", policy.MaxFile/4),
		"many keys":           strings.Repeat("a:\n", policy.MaxFile/3),
		"many questions":      strings.Repeat("? ", policy.MaxFile/2),
		"a long key":          strings.Repeat("a", policy.MaxFile-3) + ": 1",
		"quotes":              strings.Repeat("'", policy.MaxFile),
		"anchors":             strings.Repeat("&a ", policy.MaxFile/3),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			if _, err := policy.Parse(text); err == nil {
				t.Error("no error")
			} else if len(err.Error()) > 8<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if took := time.Since(began); took > 10*time.Second { // it is milliseconds; a test machine may be busy
				t.Errorf("took %v", took)
			}
		})
	}
}

// Nothing panics, errors stay short, and what parses decides about anybody.
func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		file, rule(), rule(`hours: {from: "22:00", to: "06:00", zone: America/St_Johns}`), rule("caps: {max_bytes: 1GiB, idle: 1h}"),
		"a: &a [*a]", "? [a]\n: b", "version: 1\nrules: [{name: a, who: [{claim: b, is: c}], devices: [a\\*], targets: [\"-\"]}]", "%YAML 1.1\n---\n", "\ufeffversion: 1",
	} {
		f.Add(text, "ops", "pump-7", "ssh", int64(1780394400))
	}
	f.Fuzz(func(t *testing.T, text, name, device, target string, unix int64) {
		p, err := policy.Parse(text)
		if err != nil {
			if len(err.Error()) > 32<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			return
		}
		const year2500 = 16_725_225_600
		now := time.Unix(unix%year2500, 0)
		for _, method := range []string{auth.MethodAPIKey, auth.MethodSigned, auth.MethodOIDC} {
			by := &auth.Principal{Name: name, Method: method, Claims: map[string][]string{name: {device, target}}}
			d := p.Decide(by, device, []string{target, ""}, now)
			if d.Allowed != (d.Err() == nil) || d.Why == "" || d.Allowed && len(d.Rules) == 0 {
				t.Errorf("%+v", d)
			}
			if !d.Until.IsZero() && !d.Until.After(now) {
				t.Errorf("at %v until %v", now, d.Until)
			}
		}
	})
}
