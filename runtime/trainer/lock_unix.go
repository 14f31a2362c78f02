//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package trainer

import (
	"errors"
	"os"
	"syscall"
)

// lockDir locks a directory until unlock is called or the process ends, however
// it ends; busy says that another process has it. File systems without locks
// lock nothing.
func lockDir(dir string) (unlock func(), busy bool, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		d.Close()
		return nil, true, nil
	}
	return func() { d.Close() }, false, nil
}
