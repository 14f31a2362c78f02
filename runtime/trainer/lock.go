package trainer

import (
	"os"

	"github.com/vitgen/vitgen/runtime/internal/filelock"
)

// lockDir locks a directory until unlock is called or the process ends; busy
// says that another process has it.
func lockDir(dir string) (unlock func(), busy bool, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	if filelock.Lock(d) {
		d.Close()
		return nil, true, nil
	}
	return func() { d.Close() }, false, nil
}
