package settings_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"websocketbridge/relay/settings"
)

func TestParseEnv(t *testing.T) {
	type vars = []settings.Variable
	for _, tt := range []struct {
		name, text string
		want       vars
		fault      string
	}{
		{"nothing", "", nil, ""},
		{"comments", "# a=b\n ; c=d\n\n\t\n", nil, ""},
		{"plain", "A=1\n B = two words  \r\nC=\n", vars{{"A", "1"}, {"B", "two words"}, {"C", ""}}, ""},
		{"a connection string", "A=HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0==", vars{{"A", "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0=="}}, ""},
		{"quotes", `A='a "b" \ $c'` + "\n" + `B="it's # so"` + "\n" + `C=a"b'#c`, vars{{"A", `a "b" \ $c`}, {"B", "it's # so"}, {"C", `a"b'#c`}}, ""},
		{"a mark of the byte order", "\uFEFFA=1", vars{{"A", "1"}}, ""},
		{"no =", "A=1\nsecret", nil, "line 2: is not NAME=value"},
		{"export", "export A=secret", nil, "line 1: what stands before = is no name"},
		{"twice", "A=1\nA=2", nil, "line 2: A is there already"},
		{"an open quote", "A='secret", nil, "line 1: A begins with '"},
		{"behind a quote", "A='secret' # b", nil, "line 1: A begins with '"},
		{"an escape", `A=C:\secret`, nil, `line 1: A has a \`},
		{"an escape in quotes", `A="C:\secret"`, nil, `line 1: A has a \`},
		{"a shell's", `A="$secret"`, nil, "line 1: A has a $"},
		{"a control character", "A=secret\x00", nil, "line 1: A has a control character"},
		{"not UTF-8", "A=secret\xff", nil, "line 1: A is not valid UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := settings.ParseEnv(tt.text)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want %s", err, tt.fault)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := settings.ParseEnv("a\nb\nc"); err == nil || strings.Count(err.Error(), "line ") != 3 {
		t.Errorf("not every fault at once: %v", err)
	}
}

func TestReadEnvFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	if _, err := settings.ReadEnvFile(path); err == nil {
		t.Error("there was none")
	}
	for text, want := range map[string]string{"A=1": "", "A": path + ": line 1", strings.Repeat("#", 1<<20+1): "more than"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := settings.ReadEnvFile(path); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.10s: %v", text, err)
		}
	}
}

// What can be written is read as the same, whatever it is.
func FuzzEnv(f *testing.F) {
	for _, s := range []string{"", "a", " a ", `'`, `"`, `a'b`, `'a"b'`, `\`, "$", "a\nB=c", "#", "\uFEFF", "é", "\x85"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if vars, err := settings.ParseEnv(value); err == nil {
			for _, v := range vars {
				if _, err := settings.FormatEnv(v); err != nil {
					t.Errorf("%q was read and cannot be written: %v", v, err)
				}
			}
		}
		v := settings.Variable{Name: "A", Value: value}
		line, err := settings.FormatEnv(v)
		if err != nil {
			return
		}
		got, err := settings.ParseEnv("# before\n" + line + "\nB=after\n")
		if err != nil || len(got) != 2 || got[0] != v {
			t.Errorf("%q became %q, %v", value, got, err)
		}
	})
}
