// Package signalertest is the suite that every signaler.Signaler passes.
//
// An implementation's test gives Run a function that makes a Harness: the
// Signaler and the knobs of the hub behind it. Run calls it once per case.
//
//	func TestConformance(t *testing.T) {
//		signalertest.Run(t, func(t *testing.T) signalertest.Harness { … })
//	}
//
// Hubs differ. What one lacks, its Harness declares: a feature by a false field,
// a failure that it cannot show by an entry of Cannot. The suite then checks the
// behaviour without the feature, or skips the case with the declared reason. A
// declaration that names nothing fails.
//
// The suite waits for states and never sleeps. It cannot run in a synctest
// bubble, where t.Run is not allowed; it takes about a second per hub.
package signalertest
