package signaler

// Signed is what a signature covers.
func Signed(s *Signal) []byte { return s.signed() }
