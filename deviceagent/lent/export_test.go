package lent

import "time"

// SetGrace is for a mutex, which no bubble of testing/synctest waits for.
func (s *Source) SetGrace(d time.Duration) { s.grace = d }
