package settings

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Usage writes a table of the variables in spec: name, default, description.
func Usage(prefix string, spec any, w io.Writer) error {
	vars, err := collect(prefix, spec)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tDEFAULT\tDESCRIPTION")
	for _, v := range vars {
		def := v.defaultText
		if v.required {
			def = "(required)"
		}
		desc := v.desc
		if v.secret {
			desc += fmt.Sprintf(" (secret; or %s%s)", v.name, fileSuffix)
		}
		if v.example != "" {
			desc += fmt.Sprintf(" (such as %s)", v.example)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", v.name, def, desc)
	}
	return t.Flush()
}
