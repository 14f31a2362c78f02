package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// hasty is the disk without the waiting: no test cuts the power.
type hasty struct{ disk }

func (hasty) Create(path string) (file, error) {
	f, err := disk{}.Create(path)
	return hastyFile{f}, err
}

func (hasty) SyncDir(string) error { return nil }

type hastyFile struct{ file }

func (hastyFile) Sync() error { return nil }

func hastyRun(dir string) *Run { return &Run{Dir: dir, fs: hasty{}} }

// faulty is a disk with a fault: its call number at fails, in one of three ways.
type faulty struct {
	hasty
	at    int
	how   fault
	calls int
	names []string
	dirty map[string]bool // files written and not synced
}

type fault int

const (
	once    fault = iota // one call fails, as on a disk that is full for a moment
	forever              // that one and all that follow, as on a disk that is full
	crash                // the process ends there; files that were not synced lose their second half
)

func (f fault) String() string { return [...]string{"once", "forever", "crash"}[f] }

var errFault = errors.New("no space left on device (made up)")

// crashed is the panic that ends a process.
type crashed struct{}

// call counts a call and fails if it is its turn.
func (f *faulty) call(name string) error {
	f.calls++
	f.names = append(f.names, name)
	switch {
	case f.calls < f.at, f.how == once && f.calls > f.at, f.at == 0:
		return nil
	case f.how == crash:
		f.lose()
		panic(crashed{})
	}
	return fmt.Errorf("%s: %w", name, errFault)
}

// lose cuts off what was not synced.
func (f *faulty) lose() {
	for path := range f.dirty {
		if info, err := os.Stat(path); err == nil {
			if err := os.Truncate(path, info.Size()/2); err != nil {
				panic(err)
			}
		}
	}
}

func (f *faulty) Mkdir(path string) error {
	if err := f.call("mkdir " + path); err != nil {
		return err
	}
	return f.hasty.Mkdir(path)
}

func (f *faulty) Create(path string) (file, error) {
	if err := f.call("create " + path); err != nil {
		return nil, err
	}
	g, err := f.hasty.Create(path)
	f.dirty[path] = true
	return &faultyFile{f, path, g}, err
}

func (f *faulty) Rename(from, to string) error {
	if err := f.call("rename " + from); err != nil {
		return err
	}
	for path := range f.dirty {
		if filepath.Dir(path) == from {
			delete(f.dirty, path)
			f.dirty[filepath.Join(to, filepath.Base(path))] = true
		}
	}
	return f.hasty.Rename(from, to)
}

func (f *faulty) Symlink(target, path string) error {
	if err := f.call("symlink " + path); err != nil {
		return err
	}
	return f.hasty.Symlink(target, path)
}

func (f *faulty) Remove(path string) error {
	if err := f.call("remove " + path); err != nil {
		return err
	}
	return f.hasty.Remove(path)
}

// RemoveAll may end in the middle: then the first of the files is gone.
func (f *faulty) RemoveAll(path string) error {
	if err := f.call("remove all of " + path); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err == nil && len(entries) > 0 {
		if err := os.Remove(filepath.Join(path, entries[0].Name())); err != nil {
			return err
		}
		if err := f.call("remove the rest of " + path); err != nil {
			return err
		}
	}
	return f.hasty.RemoveAll(path)
}

func (f *faulty) SyncDir(path string) error {
	if err := f.call("sync " + path); err != nil {
		return err
	}
	return f.hasty.SyncDir(path)
}

type faultyFile struct {
	of   *faulty
	path string
	file
}

func (g *faultyFile) Write(b []byte) (int, error) {
	if err := g.of.call("write " + g.path); err != nil {
		n, _ := g.file.Write(b[:len(b)/2])
		return n, err
	}
	return g.file.Write(b)
}

func (g *faultyFile) Sync() error {
	if err := g.of.call("sync " + g.path); err != nil {
		return err
	}
	delete(g.of.dirty, g.path)
	return g.file.Sync()
}

func (g *faultyFile) Close() error {
	if err := g.of.call("close " + g.path); err != nil {
		return errors.Join(err, g.file.Close())
	}
	return g.file.Close()
}

// step saves update n and prunes, as a trainer does; each odd update is a best
// one. done says that the process lived to the end.
func step(t *testing.T, r *Run, n int) (err error, done bool) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil && p != any(crashed{}) {
			panic(p)
		}
	}()
	c := someCheckpoint(t, n)
	err = r.Save(testModel(), c)
	if err == nil {
		err = r.Prune(c.State.Best, 0)
	}
	return err, true
}

// Whichever call fails, and in whatever way, a run keeps a checkpoint that is
// whole, the newest that was saved or the one being saved; it goes on from there
// as if nothing had been, and nothing is left over.
func TestFaults(t *testing.T) {
	for _, scene := range []struct {
		name   string
		before []int // saved without faults
		save   int
	}{
		{"first", nil, 1},
		{"better", []int{1, 2}, 3},
		{"no better", []int{1, 2, 3}, 4},
		{"again", []int{1, 2, 3}, 3}, // as after a validation that was interrupted
	} {
		for _, how := range []fault{once, forever, crash} {
			for at := 1; ; at++ {
				dir := t.TempDir()
				for _, n := range scene.before {
					if err, _ := step(t, hastyRun(dir), n); err != nil {
						t.Fatal(err)
					}
				}
				f := &faulty{at: at, how: how, dirty: map[string]bool{}}
				err, done := step(t, &Run{Dir: dir, fs: f}, scene.save)
				if at > f.calls {
					if err != nil || !done {
						t.Fatalf("%s without a fault: %v", scene.name, err)
					}
					if at < 15 {
						t.Fatalf("%s: only %d calls: %q", scene.name, at, f.names)
					}
					break
				}
				where := fmt.Sprintf("%s, %s at %s", scene.name, how, f.names[at-1])
				if done && err == nil && how != once {
					t.Errorf("%s: no error", where)
				}
				if err != nil && !errors.Is(err, errFault) {
					t.Errorf("%s: %v", where, err)
				}
				goesOn(t, where, dir, scene.before, scene.save)
				if t.Failed() {
					return
				}
			}
		}
	}
}

// goesOn resumes a run as a trainer does and looks at what it finds; then it
// saves the next update and looks at what is left.
func goesOn(t *testing.T, where, dir string, before []int, saved int) {
	t.Helper()
	r := hastyRun(dir)
	if err := r.PutBack(); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	last, err := r.Last()
	if err != nil {
		if len(before) > 0 {
			t.Fatalf("%s: %v", where, err)
		}
		last = 0 // the run had nothing to lose
	} else if last != saved && last != before[max(0, len(before)-1)] {
		t.Errorf("%s: the last checkpoint is of %d", where, last)
	}
	if last > 0 {
		c := mustRead(t, r, last)
		if err := r.Repair(c); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		mustLink(t, where, dir, LastLink, last)
		mustLink(t, where, dir, BestLink, c.State.Best.Updates)
		mustRead(t, r, c.State.Best.Updates)
	}
	next := last + 1
	if err, _ := step(t, r, next); err != nil {
		t.Fatalf("%s: the next save: %v", where, err)
	}
	want := []int{next}
	if best := bestOf(next); best != next {
		want = []int{best, next}
	}
	if all, err := r.Checkpoints(); err != nil || !slices.Equal(all, want) {
		t.Errorf("%s: in the end there are checkpoints %v, %v; want %v", where, all, err, want)
	}
	entries, err := os.ReadDir(filepath.Join(dir, checkpointsDir))
	if err != nil || len(entries) != len(want) {
		t.Errorf("%s: left over: %v, %v", where, entries, err)
	}
	entries, err = os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("%s: left over in the run: %v, %v", where, entries, err)
	}
}

// fat is a disk without links.
type fat struct{ hasty }

func (fat) Symlink(target, path string) error {
	return &os.LinkError{Op: "symlink", Old: target, New: path, Err: syscall.EPERM}
}

// Where links cannot be made, last and best are copies.
func TestNoLinks(t *testing.T) {
	r := &Run{Dir: t.TempDir(), fs: fat{}}
	for n := 1; n <= 4; n++ {
		if err, _ := step(t, r, n); err != nil {
			t.Fatal(err)
		}
		for link, updates := range map[string]int{LastLink: n, BestLink: bestOf(n)} {
			got, err := os.ReadFile(filepath.Join(r.Dir, link))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(r.Path(updates), AverageFile))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("after update %d %s is not of update %d, %v", n, link, updates, err)
			}
		}
	}
	if entries, err := os.ReadDir(r.Dir); err != nil || len(entries) != 3 {
		t.Errorf("left are %v, %v", entries, err)
	}
}
