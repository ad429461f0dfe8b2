package token_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"websocketbridge/relay/token"
)

func TestID(t *testing.T) {
	form := regexp.MustCompile(`^[a-z2-7]{26}$`)
	seen := make(map[token.ID]bool)
	for range 1000 {
		id := token.NewID()
		got, err := token.ParseID(id.String())
		if err != nil || got != id || !form.MatchString(id.String()) || id.IsZero() || seen[id] {
			t.Fatalf("%s: %v", id, err)
		}
		seen[id] = true
	}
	const golden = "aaaqeayeaudaocajbifqydiob4" // RFC 4648 section 6 of 00 01 … 0f, lower case
	want := token.ID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if got, err := token.ParseID(golden); err != nil || got != want || want.String() != golden {
		t.Errorf("ParseID = %v, %v", got, err)
	}
}

func TestParseIDRefuses(t *testing.T) {
	id := token.NewID().String()
	for name, s := range map[string]string{
		"nothing":       "",
		"short":         id[:25],
		"long":          id + "a",
		"padded":        id + "======",
		"upper case":    "A" + id[1:],
		"digit 1":       "1" + id[1:],
		"line end":      id[:25] + "\n",
		"line ends":     strings.Repeat("\n", 26),
		"trailing bits": id[:25] + "b", // the last character carries three bits
		"not ASCII":     "é" + id[2:],
	} {
		if got, err := token.ParseID(s); err == nil || !got.IsZero() {
			t.Errorf("%s: ParseID = %v, %v", name, got, err)
		}
	}
}

func TestIDInJSON(t *testing.T) {
	type doc struct{ ID token.ID }
	want := doc{token.NewID()}
	b, err := json.Marshal(want)
	if err != nil || string(b) != `{"ID":"`+want.ID.String()+`"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var got doc
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"ID":"x"}`), &got); err == nil || got != want {
		t.Errorf("a bad ID: %v, %v", got, err)
	}
}
