package session

// Held is how many streams of the other side count for MaxStreams.
func (s *Session) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// Grown is by how much all windows together have grown.
func (s *Session) Grown() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grown
}

// SetNextID makes the next Open use this ID.
func (s *Session) SetNextID(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID = id
}

// Window is the stream's receive window.
func (st *Stream) Window() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.window
}

// Credit is how many bytes the other side may still send.
func (st *Stream) Credit() int64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.recvCredit
}

// Buffered is how many bytes wait to be read, and how much memory they take.
func (st *Stream) Buffered() (size, memory int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for c := st.queue.head; c != nil; c = c.next {
		memory += len(c.b)
	}
	return st.queue.size, memory
}
