//go:build unix && !linux

package cpu

// adviseHuge is a hint only Linux takes.
func adviseHuge([]byte) {}
