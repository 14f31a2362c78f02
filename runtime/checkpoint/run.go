package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Names in a run's directory.
const (
	LastLink = "last.safetensors"
	BestLink = "best.safetensors"

	checkpointsDir = "checkpoints"
)

// Directories beside the checkpoints begin with these while they are made, make
// way for another of the same update, and are removed.
const (
	temporaryPrefix = ".tmp-"
	asidePrefix     = ".old-"
	removedPrefix   = ".del-"
)

// Run is a run's directory. It need not exist.
type Run struct {
	Dir string
	fs  files
}

// NewRun is the run in a directory.
func NewRun(dir string) *Run { return &Run{Dir: dir, fs: disk{}} }

func (r *Run) root() string { return filepath.Join(r.Dir, checkpointsDir) }

// Path is the directory of a checkpoint.
func (r *Run) Path(updates int) string { return filepath.Join(r.root(), stepName(updates)) }

func stepName(updates int) string { return fmt.Sprintf("%06d", updates) }

// stepOf is the number of updates in a checkpoint's name; ok is false if it is
// no such name.
func stepOf(name string) (updates int, ok bool) {
	updates, err := strconv.Atoi(name)
	return updates, err == nil && updates >= 0 && name == stepName(updates)
}

// Checkpoints lists the updates that the run has checkpoints of, rising. A run
// that has not begun has none.
func (r *Run) Checkpoints() ([]int, error) {
	entries, err := r.entries()
	if err != nil {
		return nil, err
	}
	var all []int
	for _, name := range entries {
		if updates, ok := stepOf(name); ok {
			all = append(all, updates)
		}
	}
	slices.Sort(all)
	return all, nil
}

// entries are the names of the directories beside and including checkpoints.
func (r *Run) entries() ([]string, error) {
	entries, err := os.ReadDir(r.root())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Last is the update of the newest checkpoint, or an error that is a
// fs.ErrNotExist if there is none.
func (r *Run) Last() (int, error) {
	all, err := r.Checkpoints()
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("%s has no checkpoint: %w", r.Dir, fs.ErrNotExist)
	}
	return all[len(all)-1], nil
}

// Prune removes all checkpoints but the newest, the best, the one from before
// the first update, and those of every keepEvery updates (0: no others).
func (r *Run) Prune(best *Score, keepEvery int) error {
	all, err := r.Checkpoints()
	if err != nil {
		return err
	}
	removed := false
	for i, updates := range all {
		if i == len(all)-1 || updates == 0 || best != nil && updates == best.Updates || keepEvery > 0 && updates%keepEvery == 0 {
			continue
		}
		if err := r.fs.Rename(r.Path(updates), filepath.Join(r.root(), removedPrefix+stepName(updates))); err != nil {
			return err
		}
		removed = true
	}
	if !removed {
		return nil
	}
	// A directory half removed must not come back under a checkpoint's name.
	if err := r.fs.SyncDir(r.root()); err != nil {
		return err
	}
	return r.sweep(removedPrefix)
}

// sweep removes the directories whose names begin with a prefix.
func (r *Run) sweep(prefix string) error {
	names, err := r.entries()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			if err := r.fs.RemoveAll(filepath.Join(r.root(), name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Repair finishes what a trainer that was cut off began: it puts back a
// checkpoint that was making way for another of the same update, removes what
// was being written or removed, and makes the links name what they should.
// newest is the newest checkpoint.
func (r *Run) Repair(newest *Checkpoint) error {
	for _, prefix := range []string{temporaryPrefix, removedPrefix, asidePrefix} {
		if err := r.sweep(prefix); err != nil {
			return err
		}
	}
	best := newest.State.Best
	if best != nil {
		if _, err := os.Stat(r.Path(best.Updates)); err != nil {
			best = nil
		}
	}
	return r.link(newest.State.Updates, best, newest.State.Checksums.Average != nil)
}

// PutBack gives checkpoints their names back that were making way for others of
// the same update when a trainer was cut off.
func (r *Run) PutBack() error {
	names, err := r.entries()
	if err != nil {
		return err
	}
	for _, name := range names {
		step, ok := strings.CutPrefix(name, asidePrefix)
		if _, is := stepOf(step); !ok || !is {
			continue
		}
		if _, err := os.Lstat(filepath.Join(r.root(), step)); errors.Is(err, fs.ErrNotExist) {
			if err := r.fs.Rename(filepath.Join(r.root(), name), filepath.Join(r.root(), step)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Holds names something in the directory that a new run would write over and
// that somebody may want to keep; "" if there is nothing.
func (r *Run) Holds() (string, error) {
	names, err := r.entries()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if _, ok := stepOf(strings.TrimPrefix(name, asidePrefix)); ok {
			return filepath.Join(checkpointsDir, name), nil
		}
	}
	for _, name := range []string{LastLink, BestLink} {
		switch _, err := os.Lstat(filepath.Join(r.Dir, name)); {
		case err == nil:
			return name, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// Clear removes the checkpoints and the links to them.
func (r *Run) Clear() error {
	for _, name := range []string{LastLink, BestLink} {
		if err := r.fs.Remove(filepath.Join(r.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	names, err := r.entries()
	if err != nil {
		return err
	}
	for _, name := range names {
		rest := name
		for _, prefix := range []string{temporaryPrefix, asidePrefix, removedPrefix} {
			rest = strings.TrimPrefix(rest, prefix)
		}
		if _, ok := stepOf(rest); ok {
			if err := r.fs.RemoveAll(filepath.Join(r.root(), name)); err != nil {
				return err
			}
		}
	}
	return nil
}
