package nvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// A Package is the CUDA source of a generated package and what was compiled of it.
type Package struct {
	Dir     string
	Source  []byte
	Headers map[string][]byte
}

var includeLine = regexp.MustCompile(`(?m)^\s*#\s*include\s*"([^"]+)"`)

// ReadPackage reads kernels.cu of a folder and the headers it includes from
// there. The error wraps fs.ErrNotExist if there is no kernels.cu.
func ReadPackage(dir string) (*Package, error) {
	source, err := os.ReadFile(filepath.Join(dir, SourceName))
	if err != nil {
		return nil, err
	}
	p := &Package{Dir: dir, Source: source, Headers: map[string][]byte{}}
	if err := p.include(source); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Package) include(text []byte) error {
	for _, m := range includeLine.FindAllSubmatch(text, -1) {
		name := string(m[1])
		if _, ok := p.Headers[name]; ok || !filepath.IsLocal(name) {
			continue
		}
		header, err := os.ReadFile(filepath.Join(p.Dir, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the compiler's own, or its error to report
		} else if err != nil {
			return err
		}
		p.Headers[name] = header
		if err := p.include(header); err != nil {
			return err
		}
	}
	return nil
}

// Compiled lists the architectures that the folder holds PTX for, made of the
// source that it holds now.
func (p *Package) Compiled() ([]string, error) {
	current, _, err := p.ptx()
	return current, err
}

// RemoveStale deletes PTX that was made of an earlier source, or of one that is
// no longer there, and returns the files' names. Files that vitgen did not make
// stay.
func RemoveStale(dir string) ([]string, error) {
	p, err := ReadPackage(dir)
	if errors.Is(err, fs.ErrNotExist) {
		p = &Package{Dir: dir}
	} else if err != nil {
		return nil, err
	}
	_, stale, err := p.ptx()
	if err != nil {
		return nil, err
	}
	return stale, removeAll(stale)
}

// ptx sorts the PTX files that vitgen made: architectures of current ones,
// names of stale ones.
func (p *Package) ptx() (current, stale []string, err error) {
	names, err := filepath.Glob(filepath.Join(p.Dir, PTXName("sm_*")))
	if err != nil {
		return nil, nil, err
	}
	stamp := []byte(Stamp(p.Source, p.Headers))
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		line, _, _ := bytes.Cut(data, []byte("\n"))
		arch := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "kernels."), ".ptx")
		switch {
		case !bytes.HasPrefix(line, []byte(stampStart)):
		case p.Source != nil && bytes.Equal(line, stamp):
			current = append(current, arch)
		default:
			stale = append(stale, name)
		}
	}
	return current, stale, nil
}

// Compile makes the PTX of these architectures and writes it into the folder.
// PTX of others, and all of an earlier source, is removed: after an error, too.
func (p *Package) Compile(ctx context.Context, compiler *Compiler, cache *Cache, archs []string) (Report, error) {
	if _, err := RemoveStale(p.Dir); err != nil {
		return Report{}, err
	}
	files, report, err := Compile(ctx, Input{
		Source: p.Source, Headers: p.Headers, Archs: archs, Compiler: compiler, Cache: cache,
	})
	if err != nil {
		return report, err
	}
	for name, data := range files {
		if err := p.write(filepath.Join(p.Dir, name), data); err != nil {
			return report, err
		}
	}
	return report, p.removeOthers(archs)
}

// write leaves an equal file as it is, so that Go need not build it again.
func (p *Package) write(name string, data []byte) error {
	old, err := os.ReadFile(name)
	if err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err == nil && !bytes.HasPrefix(old, []byte(stampStart)) {
		return fmt.Errorf("%s exists and was not written by vitgen; remove it", name)
	}
	return renameio.WriteFile(name, data, 0o644)
}

func (p *Package) removeOthers(archs []string) error {
	current, _, err := p.ptx()
	if err != nil {
		return err
	}
	var others []string
	for _, arch := range current {
		if !slices.Contains(archs, arch) {
			others = append(others, filepath.Join(p.Dir, PTXName(arch)))
		}
	}
	return removeAll(others)
}

func removeAll(names []string) error {
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
