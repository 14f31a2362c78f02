package checkpoint

import (
	"io"
	"os"
)

// files is the file system as saving uses it: a method for each call that may
// fail, so that tests can make every one of them fail.
type files interface {
	Mkdir(path string) error // may be there
	Create(path string) (file, error)
	Rename(from, to string) error
	Symlink(target, path string) error
	Remove(path string) error
	RemoveAll(path string) error
	SyncDir(path string) error // entries made, renamed and removed in it are safe
}

// file is a file being written.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// disk is the real one.
type disk struct{}

func (disk) Mkdir(path string) error { return os.MkdirAll(path, 0o755) }

func (disk) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func (disk) Rename(from, to string) error      { return os.Rename(from, to) }
func (disk) Symlink(target, path string) error { return os.Symlink(target, path) }
func (disk) Remove(path string) error          { return os.Remove(path) }
func (disk) RemoveAll(path string) error       { return os.RemoveAll(path) }

func (disk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
