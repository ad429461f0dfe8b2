package emulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A query is SELECT * FROM devices, or devices.modules, with conditions that all
// have to hold.
type query struct {
	modules bool
	where   []condition
}

// A condition compares a field of the twin, such as tags.site, with a constant.
type condition struct {
	path  []string
	not   bool
	value any // string, json.Number, bool
}

// parseQuery reads the part of IoT Hub's query language that the emulator has.
func parseQuery(s string) (q query, err error) {
	tokens, err := lex(s)
	if err != nil {
		return q, err
	}
	next := func() (t string) {
		if len(tokens) > 0 {
			t, tokens = tokens[0], tokens[1:]
		}
		return t
	}
	for _, word := range []string{"SELECT", "*", "FROM"} {
		if t := next(); !strings.EqualFold(t, word) {
			return q, fmt.Errorf("the emulator reads SELECT * FROM devices [WHERE …]; there is %.40q instead of %s", t, word)
		}
	}
	switch from := strings.ToLower(next()); from {
	case "devices":
	case "devices.modules":
		q.modules = true
	default:
		return q, fmt.Errorf("it is from devices or devices.modules, and not %.40q", from)
	}
	for word := "WHERE"; len(tokens) > 0; word = "AND" {
		if t := next(); !strings.EqualFold(t, word) {
			return q, fmt.Errorf("there is %.40q instead of %s", t, word)
		}
		field, op, text := next(), next(), next()
		if op != "=" && op != "!=" && op != "<>" {
			return q, fmt.Errorf("%.40q is not an operator of the emulator's: =, != and <>", op)
		}
		c := condition{path: strings.Split(field, "."), not: op != "="}
		if rest, ok := strings.CutPrefix(text, "'"); ok {
			c.value = strings.ReplaceAll(strings.TrimSuffix(rest, "'"), "''", "'")
		} else if err := decodeJSON([]byte(text), &c.value); err != nil || c.value == nil {
			return q, fmt.Errorf("%.40q is not a constant", text)
		}
		q.where = append(q.where, c)
	}
	return q, nil
}

// lex splits a query into words, operators and strings, whose quotes stay.
func lex(s string) (tokens []string, err error) {
	for i := 0; i < len(s); {
		start := i
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
			continue
		case c == '\'' || c == '"':
			for i++; ; i++ {
				if i >= len(s) {
					return nil, fmt.Errorf("a string has no end")
				}
				if s[i] != c {
					continue
				}
				if i+1 < len(s) && s[i+1] == c {
					i++
					continue
				}
				break
			}
			i++
			tokens = append(tokens, "'"+s[start+1:i-1]+"'")
			continue
		case c == '=' || c == '!' || c == '<' || c == '>':
			for i < len(s) && strings.IndexByte("=!<>", s[i]) >= 0 {
				i++
			}
		default:
			for i < len(s) && strings.IndexByte(" \t\r\n'\"=!<>", s[i]) < 0 {
				i++
			}
		}
		tokens = append(tokens, s[start:i])
	}
	return tokens, nil
}

// holds says whether a twin's JSON meets the conditions.
func (q *query) holds(twin map[string]any) bool {
	for _, c := range q.where {
		var v any = twin
		for _, name := range c.path {
			o, _ := v.(map[string]any)
			v = o[name]
		}
		if same := fmt.Sprint(v) == fmt.Sprint(c.value) && isText(v) == isText(c.value); v == nil || same == c.not {
			return false
		}
	}
	return true
}

func isText(v any) bool { _, ok := v.(string); return ok }

func (h *Hub) restQuery(q *request) (int, any, *hubError) {
	if !h.tier().devices {
		return 0, nil, errTier(h.cfg.Tier, "Queries are")
	}
	var in struct{ Query string } // in any case: some say Query
	if err := json.Unmarshal(q.body, &in); err != nil {
		return 0, nil, errArgument("The body is not a query's JSON.")
	}
	parsed, err := parseQuery(in.Query)
	if err != nil {
		return 0, nil, errArgument("The query: %v.", err)
	}
	count, from := 1000, 0
	if s := q.Header.Get("x-ms-max-item-count"); s != "" {
		if count, err = strconv.Atoi(s); err != nil || count < 1 || count > 1000 {
			return 0, nil, errArgument("x-ms-max-item-count is not within [1; 1000].")
		}
	}
	if s := q.Header.Get("x-ms-continuation"); s != "" {
		b, err := base64.StdEncoding.DecodeString(s)
		if err == nil {
			from, err = strconv.Atoi(string(b))
		}
		if err != nil || from < 0 {
			return 0, nil, errArgument("x-ms-continuation is none of this hub's.")
		}
	}
	page, more := h.page(parsed, from, count)
	if more {
		q.header.Set("x-ms-continuation", base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(from+count))))
	}
	q.header.Set("x-ms-item-type", "Twin")
	return 200, page, nil
}

// page returns what a query finds, from one place on; more: and there is more.
func (h *Hub) page(q query, from, count int) (out []map[string]any, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out = []map[string]any{}
	add := func(r *record) {
		t := h.twinJSON(r)
		switch {
		case !q.holds(t):
		case from > 0:
			from--
		case len(out) < count:
			out = append(out, t)
		default:
			more = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.devices)) {
		d := h.devices[id]
		if !q.modules {
			add(d)
			continue
		}
		for _, m := range slices.Sorted(maps.Keys(d.modules)) {
			add(d.modules[m])
		}
	}
	return out, more
}
