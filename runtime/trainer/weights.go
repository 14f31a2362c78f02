package trainer

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
)

// weightsFlag is the flag --weights of the commands that read trained weights.
type weightsFlag struct{ path string }

func (w *weightsFlag) define(fs *flag.FlagSet) {
	fs.StringVar(&w.path, "weights", "", "safetensors `file` under PyTorch's state_dict names, a run's directory (its best), or a checkpoint's")
}

// file gives the weights file that the flag stands for.
func (w *weightsFlag) file(command string) (string, error) {
	if w.path == "" {
		return "", usagef("%s: --weights FILE is missing%s", command, trainedWeights())
	}
	return weightsIn(w.path)
}

// weightsIn gives the weights file that a path stands for: itself; of a
// checkpoint, the average if one is kept, which is what validation measured; of
// a run, the best.
func weightsIn(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, err
	}
	names := []string{checkpoint.BestLink, checkpoint.LastLink, checkpoint.AverageFile, checkpoint.WeightsFile}
	for _, name := range names {
		file := filepath.Join(path, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s has no weights: a run has %s, a checkpoint %s", path, names[0], names[3])
}

// trainedWeights is a hint: the best weights of the runs in this directory, the
// newest first.
func trainedWeights() string {
	type run struct {
		path string
		made int64
	}
	var runs []run
	found, _ := filepath.Glob(filepath.Join("runs", "*", checkpoint.BestLink)) // the pattern is good
	for _, path := range found {
		if info, err := os.Stat(path); err == nil {
			runs = append(runs, run{path, info.ModTime().UnixNano()})
		}
	}
	if len(runs) == 0 {
		return "; train writes it"
	}
	slices.SortStableFunc(runs, func(a, b run) int { return int(min(max(b.made-a.made, -1), 1)) })
	hint := "; there are"
	for _, r := range runs[:min(len(runs), 5)] {
		hint += " " + r.path
	}
	return hint
}

// openTrained starts a session with the weights of a file.
func (a *app) openTrained(p placement, weights string) (*runtime.Session, error) {
	s, err := a.open(p)
	if err != nil {
		return nil, err
	}
	if err := s.Load(weights); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}
