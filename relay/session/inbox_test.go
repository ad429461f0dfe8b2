package session

import "testing"

// In a long payload a read ends with the next headers, so that the payload behind these
// comes whole; else it brings whatever there is.
func TestInboxReads(t *testing.T) {
	var asked int
	in := newInbox(func(p []byte) (int, error) {
		asked = len(p)
		return len(p), nil
	}, func() {})
	defer in.release()
	want := func(what string, n int) {
		t.Helper()
		if asked != n {
			t.Errorf("%s: a read of %d bytes, want %d", what, asked, n)
		}
		in.take(len(in.ready()))
	}
	in.more()
	want("at first", idleInbox)
	in.moreOf(dataSize)
	want("all of a payload", dataSize+nextHeaders)
	in.moreOf(busyInbox / 2)
	want("half of a payload", busyInbox/2+nextHeaders)
	in.moreOf(1000)
	want("the rest of a payload", busyInbox)
	in.moreOf(MaxPayload)
	want("more than there is room for", busyInbox)
	in.more()
	want("a header", busyInbox)
}
