package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Names in a checkpoint's directory.
const (
	WeightsFile = "weights.safetensors"
	AverageFile = "average.safetensors"
	StateFile   = "state.safetensors"
)

// stateKey and lossesName are where a state file has what is not optimizer state.
const (
	stateKey    = "vitgen.state"
	stateSumKey = "vitgen.state_crc32c"
	lossesName  = "losses"
)

// Save writes a checkpoint and makes last.safetensors name it, and
// best.safetensors the one that State.Best is of. On an error the run has the
// checkpoints it had before, and perhaps this one, whole.
func (r *Run) Save(m *runtime.Model, c *Checkpoint) error {
	if err := r.save(m, c); err != nil {
		return fmt.Errorf("saving update %d in %s: %w", c.State.Updates, r.Dir, err)
	}
	return nil
}

func (r *Run) save(m *runtime.Model, c *Checkpoint) error {
	parts, err := encode(m, c)
	if err != nil {
		return err
	}
	root, name := r.root(), stepName(c.State.Updates)
	if err := r.fs.Mkdir(root); err != nil {
		return err
	}
	temporary := filepath.Join(root, temporaryPrefix+name)
	if err := r.fs.RemoveAll(temporary); err != nil { // of a save that was cut off
		return err
	}
	if err := r.write(temporary, parts); err != nil {
		// What is left of it is in the way of nothing, but may fill the disk.
		return errors.Join(err, r.fs.RemoveAll(temporary))
	}
	if err := r.commit(temporary, root, name); err != nil {
		return err
	}
	return r.link(c.State.Updates, c.State.Best, parts[1].file != nil)
}

// part is a file of a checkpoint.
type part struct {
	name string
	file *safetensors.File
}

// encode makes a checkpoint's files: weights, average (nil: none), state.
func encode(m *runtime.Model, c *Checkpoint) ([3]part, error) {
	files := c.Snapshot.Files(m)
	parts := [3]part{{WeightsFile, files.Weights}, {AverageFile, files.Average}, {StateFile, files.State}}
	files.State.Tensors = append(files.State.Tensors, safetensors.FromFloat64s(lossesName, []int{len(c.Losses)}, c.Losses))
	s := &c.State
	s.Version = Version
	s.Seed, s.Updates, s.Micro = c.Snapshot.Counters()
	s.Checksums = checksums(parts)
	if err := s.check(); err != nil {
		return parts, fmt.Errorf("state: %w", err)
	}
	text, err := json.Marshal(s)
	if err != nil { // a number that is not finite, which check's readers need not expect
		return parts, fmt.Errorf("state: %w", err)
	}
	files.State.Metadata[stateKey], files.State.Metadata[stateSumKey] = string(text), textSum(string(text))
	return parts, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksums(parts [3]part) (c Checksums) {
	for i, p := range parts {
		if p.file == nil {
			continue
		}
		sum := uint32(0)
		for k := range p.file.Tensors { // by rising name when written and when read
			sum = crc32.Update(sum, castagnoli, p.file.Tensors[k].Data)
		}
		switch i {
		case 0:
			c.Weights = sum
		case 1:
			c.Average = &sum
		case 2:
			c.State = sum
		}
	}
	return c
}

// textSum is the checksum of a state's text.
func textSum(text string) string {
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(text), castagnoli))
}

// write makes a directory with the files in it, all of it synced.
func (r *Run) write(dir string, parts [3]part) error {
	if err := r.fs.Mkdir(dir); err != nil {
		return err
	}
	for _, p := range parts {
		if p.file == nil {
			continue
		}
		if err := r.writeFile(filepath.Join(dir, p.name), p.file); err != nil {
			return err
		}
	}
	return r.fs.SyncDir(dir)
}

func (r *Run) writeFile(path string, content *safetensors.File) error {
	f, err := r.fs.Create(path)
	if err != nil {
		return err
	}
	if err = safetensors.Encode(f, content); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// commit gives a finished directory its name. A checkpoint of the same update
// that is there already makes way, and comes back if that fails.
func (r *Run) commit(temporary, root, name string) error {
	path, aside := filepath.Join(root, name), filepath.Join(root, asidePrefix+name)
	_, err := os.Lstat(path)
	again := err == nil
	if again {
		if err := r.fs.RemoveAll(aside); err != nil {
			return err
		}
		if err := r.fs.Rename(path, aside); err != nil {
			return err
		}
	}
	if err := r.fs.Rename(temporary, path); err != nil {
		if again {
			err = errors.Join(err, r.fs.Rename(aside, path))
		}
		return errors.Join(err, r.fs.RemoveAll(temporary))
	}
	if err := r.fs.SyncDir(root); err != nil {
		return err
	}
	if again {
		return r.fs.RemoveAll(aside)
	}
	return nil
}

// link makes last.safetensors and best.safetensors name checkpoints: what
// validation measured, which is the average if one is kept.
func (r *Run) link(last int, best *Score, average bool) error {
	name := WeightsFile
	if average {
		name = AverageFile
	}
	links := map[string]int{LastLink: last}
	if best != nil {
		links[BestLink] = best.Updates
	}
	changed := false
	for _, link := range []string{LastLink, BestLink} {
		updates, ok := links[link]
		if !ok {
			continue
		}
		target := filepath.Join(checkpointsDir, stepName(updates), name)
		now, err := os.Readlink(filepath.Join(r.Dir, link))
		if err == nil && now == target {
			continue
		}
		if err := r.replaceLink(link, target); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return r.fs.SyncDir(r.Dir)
}

// replaceLink replaces a link, or makes it, in one step. Where there are no
// links, as on a FAT disk, it is a copy.
func (r *Run) replaceLink(link, target string) error {
	temporary := filepath.Join(r.Dir, temporaryPrefix+link)
	if err := r.fs.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := r.fs.Symlink(target, temporary)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		err = r.copyFile(filepath.Join(r.Dir, target), temporary)
	}
	if err != nil {
		return err
	}
	return r.fs.Rename(temporary, filepath.Join(r.Dir, link))
}

func (r *Run) copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := r.fs.Create(to)
	if err != nil {
		return err
	}
	if _, err = io.Copy(dst, src); err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}
