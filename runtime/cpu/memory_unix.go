//go:build unix

package cpu

import (
	"syscall"
)

var pageSize = syscall.Getpagesize()

func mapPages(n int) ([]byte, error) {
	return syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
}

// unmapPages cannot fail for a mapping that mapPages returned.
func unmapPages(b []byte) {
	if err := syscall.Munmap(b); err != nil {
		panic("BUG: munmap: " + err.Error())
	}
}

// guardPages makes every access to the pages a fault.
func guardPages(b []byte) error { return syscall.Mprotect(b, syscall.PROT_NONE) }
