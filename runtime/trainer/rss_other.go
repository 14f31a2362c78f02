//go:build unix && !linux

package trainer

// rssUnit is the unit of getrusage's maxrss in bytes, as Darwin counts.
const rssUnit = 1
