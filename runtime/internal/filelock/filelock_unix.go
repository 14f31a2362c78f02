//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

// Package filelock keeps two processes from writing the same thing.
package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Lock takes a file or a directory for this process until f is closed or the
// process ends, however it ends; busy says that another one has it. File systems
// without locks lock nothing.
func Lock(f *os.File) (busy bool) {
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
