package service

// Below makes a folder look like the whole machine m.
func (m *Machine) Below(root string) *Machine {
	m.root = root
	return m
}

// DetectOn is Detect on another system.
var DetectOn = detect
