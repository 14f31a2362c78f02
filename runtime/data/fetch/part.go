package fetch

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/vitgen/vitgen/runtime/internal/filelock"
)

// part is a file on its way, NAME.part, locked against a second fetch.
type part struct{ *os.File }

func openPart(name string) (*part, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if filelock.Lock(out) {
		out.Close()
		return nil, fmt.Errorf("%s: another fetch is writing it", name)
	}
	return &part{out}, nil
}

// close leaves the file for the next fetch, if there is anything in it.
func (p *part) close() {
	if info, err := p.Stat(); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		os.Remove(p.Name())
	}
	p.Close()
}

func (p *part) size() (int64, error) {
	info, err := p.Stat()
	if err != nil {
		return 0, localError{err}
	}
	return info.Size(), nil
}

// empty starts over.
func (p *part) empty() error {
	if err := p.Truncate(0); err != nil {
		return localError{err}
	}
	return nil
}
