package policy_test

import (
	"testing"
	"time"
)

// What clocks do in spring and autumn, and at the edges of days. Until is where it is
// open, or the next time that it is not.
func TestHours(t *testing.T) {
	for _, tt := range []struct {
		name, hours, now string
		until            string // -: closed; empty: open for ever
	}{
		{"opens", `{from: "07:00", to: "19:00", zone: UTC}`, "2026-06-02T07:00:00Z", "2026-06-02T19:00:00Z"},
		{"not yet", `{from: "07:00", to: "19:00", zone: UTC}`, "2026-06-02T06:59:59Z", "-"},
		{"closes", `{from: "07:00", to: "19:00", zone: UTC}`, "2026-06-02T19:00:00Z", "-"},
		{"winter", `{from: "07:00", to: "19:00", zone: Europe/Amsterdam}`, "2026-01-02T06:00:00Z", "2026-01-02T18:00:00Z"},
		{"summer", `{from: "07:00", to: "19:00", zone: Europe/Amsterdam}`, "2026-06-02T05:00:00Z", "2026-06-02T17:00:00Z"},

		// Clocks go from 02:00 to 03:00 at 01:00Z.
		{"spring, the day is shorter", `{from: "00:00", to: "04:00", zone: Europe/Amsterdam}`, "2026-03-28T23:00:00Z", "2026-03-29T02:00:00Z"},
		{"spring, from is skipped", `{from: "02:30", to: "04:00", zone: Europe/Amsterdam}`, "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		{"spring, before what is skipped", `{from: "02:30", to: "04:00", zone: Europe/Amsterdam}`, "2026-03-29T00:59:59Z", "-"},
		{"spring, to is skipped", `{from: "01:00", to: "02:30", zone: Europe/Amsterdam}`, "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"},
		{"spring, all is skipped", `{from: "02:10", to: "02:50", zone: Europe/Amsterdam}`, "2026-03-29T01:00:00Z", "-"},
		{"spring, whole days", `{days: sun, zone: Europe/Amsterdam}`, "2026-03-29T01:00:00Z", "2026-03-29T22:00:00Z"},

		// Clocks go from 03:00 to 02:00 at 01:00Z.
		{"autumn, the night is longer", `{from: "00:00", to: "04:00", zone: Europe/Amsterdam}`, "2026-10-25T01:30:00Z", "2026-10-25T03:00:00Z"},
		{"autumn, to is twice: the first", `{from: "01:00", to: "02:30", zone: Europe/Amsterdam}`, "2026-10-25T00:15:00Z", "2026-10-25T00:30:00Z"},
		{"autumn, to is twice: over", `{from: "01:00", to: "02:30", zone: Europe/Amsterdam}`, "2026-10-25T01:15:00Z", "-"},
		{"autumn, from is twice: the first", `{from: "02:30", to: "05:00", zone: Europe/Amsterdam}`, "2026-10-25T00:30:00Z", "2026-10-25T04:00:00Z"},
		{"autumn, it stays open", `{from: "02:30", to: "05:00", zone: Europe/Amsterdam}`, "2026-10-25T01:15:00Z", "2026-10-25T04:00:00Z"},
		{"autumn, both are twice", `{from: "02:10", to: "02:50", zone: Europe/Amsterdam}`, "2026-10-25T01:20:00Z", "-"},
		{"autumn, whole days", `{days: sun, zone: Europe/Amsterdam}`, "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"},

		{"midnight is skipped", `{days: fri, zone: Africa/Cairo}`, "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{"before it", `{days: fri, zone: Africa/Cairo}`, "2026-04-23T21:59:59Z", "-"},
		{"a minute of the next day comes twice", `{days: sun, from: "00:00", to: "06:00", zone: America/St_Johns}`, "2006-10-29T02:45:00Z", "2006-10-29T09:30:00Z"},
		{"a day that was not", `{days: fri, zone: Pacific/Apia}`, "2011-12-30T12:00:00Z", "-"},

		{"over midnight", `{days: fri, from: "22:00", to: "06:00", zone: UTC}`, "2026-06-06T05:00:00Z", "2026-06-06T06:00:00Z"},
		{"of the day that it begins", `{days: fri, from: "22:00", to: "06:00", zone: UTC}`, "2026-06-05T05:00:00Z", "-"},
		{"until midnight", `{from: "22:00", to: "00:00", zone: UTC}`, "2026-06-05T23:00:00Z", "2026-06-06T00:00:00Z"},
		{"days that touch", `{days: mon-fri, zone: UTC}`, "2026-06-03T12:00:00Z", "2026-06-06T00:00:00Z"},
		{"a range over the week's end", `{days: sat-mon, zone: UTC}`, "2026-06-06T12:00:00Z", "2026-06-09T00:00:00Z"},
		{"days of a list", `{days: [mon, wed], zone: UTC}`, "2026-06-01T12:00:00Z", "2026-06-02T00:00:00Z"},
		{"windows that touch", `[{from: "07:00", to: "12:00", zone: UTC}, {from: "12:00", to: "19:00", zone: UTC}]`, "2026-06-03T08:00:00Z", "2026-06-03T19:00:00Z"},
		{"windows that overlap", `[{from: "07:00", to: "12:00", zone: UTC}, {from: "08:00", to: "10:00", zone: UTC}]`, "2026-06-03T09:00:00Z", "2026-06-03T12:00:00Z"},
		{"the second window", `[{days: mon-fri, zone: UTC}, {days: sat, from: "09:00", to: "12:00", zone: UTC}]`, "2026-06-06T09:00:00Z", "2026-06-06T12:00:00Z"},
		{"always", `[{from: "00:00", to: "12:00", zone: UTC}, {from: "12:00", to: "24:00", zone: UTC}]`, "2026-06-03T08:00:00Z", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustParse(t, rule("hours: "+tt.hours))
			d := p.Decide(key("ops"), "d", []string{"t"}, at(tt.now))
			got := "-"
			if d.Allowed {
				got = ""
			}
			if !d.Until.IsZero() {
				got = d.Until.UTC().Format(time.RFC3339)
			}
			if got != tt.until {
				t.Errorf("got %q, want %q: %s", got, tt.until, d.Why)
			}
		})
	}
}

// Hours as explanations have them.
func TestHoursText(t *testing.T) {
	const now = "2026-06-03T12:30:00Z" // a Wednesday
	for hours, want := range map[string]string{
		`{days: mon-tue, zone: UTC}`:                                    "mon-tue UTC only; it is Wednesday 12:30 there",
		`{days: [sun, mon, thu-fri], zone: UTC}`:                        "mon,thu-fri,sun UTC only; it is Wednesday 12:30 there",
		`{days: sat-tue, zone: UTC}`:                                    "mon-tue,sat-sun UTC only; it is Wednesday 12:30 there",
		`{from: "22:00", to: "06:00", zone: Asia/Tokyo}`:                "22:00-06:00 Asia/Tokyo only; it is Wednesday 21:30 there",
		`{days: sun, from: "12:00", to: "24:00", zone: UTC}`:            "sun 12:00-24:00 UTC only; it is Wednesday 12:30 there",
		`[{days: mon, zone: UTC}, {days: sat, zone: Europe/Amsterdam}]`: "mon UTC or sat Europe/Amsterdam only; it is Wednesday 12:30 there",
	} {
		p := mustParse(t, rule("hours: "+hours))
		d := p.Decide(key("ops"), "d", []string{"t"}, at(now))
		if want := `rule "all" lets "ops" reach target "t" on device "d" ` + want; d.Why != want {
			t.Errorf("%s\n got %s\nwant %s", hours, d.Why, want)
		}
	}
}
