package trainer

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/vitgen/vitgen/runtime/checkpoint"
)

// checkpointInfo is what info --checkpoint --json prints.
type checkpointInfo struct {
	Dir         string           `json:"dir"`
	State       checkpoint.State `json:"state"`
	Differences []string         `json:"differences"` // to this program, as far as that can be told without data
}

// infoCheckpoint says what a checkpoint is of, and whether this program could
// have written it.
func (a *app) infoCheckpoint(path, target string, asJSON bool) error {
	dir, err := checkpointDir(path)
	if err != nil {
		return err
	}
	c, err := checkpoint.Read(dir)
	if err != nil {
		return err
	}
	now := a.modelReceipt()
	now.Target, now.Kernels = target, a.model.KernelHashes[target]
	info := checkpointInfo{Dir: dir, State: c.State, Differences: c.State.Receipt.Differences(&now)}
	if asJSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(info)
	}
	return info.print(a)
}

func (i *checkpointInfo) print(a *app) error {
	s := &i.State
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("checkpoint", "%s", i.Dir)
	row("updates", "%d of %d, %d an epoch; next is micro-batch %d of epoch %d", s.Updates, s.Plan.Total, s.Plan.PerEpoch, s.Batch+1, s.Epoch+1)
	for _, v := range []struct {
		name  string
		score *checkpoint.Score
	}{{"last", s.Last}, {"best", s.Best}} {
		if v.score != nil {
			row(v.name, "accuracy %.2f %%, loss %.4f after update %d", 100*v.score.Accuracy, v.score.Loss, v.score.Updates)
		}
	}
	if s.Skipped > 0 {
		row("skipped", "%d updates, whose losses were outliers", s.Skipped)
	}
	for _, r := range s.Receipt.Rows() {
		row(r[0], "%s", r[1])
	}
	for _, c := range s.Changes {
		row("changed", "after update %d: %s", c.Updates, strings.ReplaceAll(strings.Join(c.What, "; "), "\n", " "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(i.Differences) == 0 {
		_, err := fmt.Fprintf(a.out, "model, spec and kernels are those of %s: it can go on with the run, and replay it\n", a.prog)
		return err
	}
	_, err := fmt.Fprintf(a.out, "%s cannot go on with the run:\n%s\n", a.prog, strings.Join(i.Differences, "\n"))
	return err
}
