package trainer

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/vitgen/vitgen/runtime"
)

// cudaInfo is a training step on a GPU, launch by launch, with the time that
// each would take if nothing but arithmetic or memory held it up.
type cudaInfo struct {
	Chip        string       `json:"chip"`
	Precision   string       `json:"precision"`
	Launches    []launchInfo `json:"step_launches"`
	PredictedUS float64      `json:"step_predicted_us"`
}

type launchInfo struct {
	Program     string  `json:"program"`
	Kernel      string  `json:"kernel"`
	Family      string  `json:"family"`
	Layer       string  `json:"layer"`
	Pos         string  `json:"pos"`
	Doc         string  `json:"doc"`
	Grid        int     `json:"grid"`   // blocks
	Block       int     `json:"block"`  // threads of a block
	Shared      int     `json:"shared"` // bytes of a block
	FLOPs       int64   `json:"flops"`
	Bytes       int64   `json:"bytes"`
	PredictedUS float64 `json:"predicted_us"`
}

func predict(c *runtime.CUDACode, key string) (*cudaInfo, error) {
	chip, err := runtime.ChipByKey(key)
	if err != nil {
		return nil, usageError{err}
	}
	info := &cudaInfo{Chip: chip.Name, Precision: c.Precision}
	for _, id := range []runtime.ProgramID{runtime.Grad, runtime.Update} {
		for _, l := range c.Programs[id] {
			k := &c.Kernels[l.Kernel]
			us := chip.Predict(&k.Kernel, c.Precision).Seconds() * 1e6
			info.Launches = append(info.Launches, launchInfo{id.String(), k.Name, k.Family, l.Layer, l.Pos, k.Doc, k.Grid, k.Block, k.Shared, k.FLOPs, k.Bytes, us})
			info.PredictedUS += us
		}
	}
	return info, nil
}

func (c *cudaInfo) print(w *tabwriter.Writer) {
	fmt.Fprintf(w, "a step on an %s in %s: %d launches, one CUDA graph; at least %.0f µs by arithmetic and memory\n\f",
		c.Chip, c.Precision, len(c.Launches), c.PredictedUS)
	fmt.Fprintln(w, "\tkernel\tspec\tblocks × threads\tshared\tMFLOP\tMB\tµs\twhat")
	for i, l := range c.Launches {
		fmt.Fprintf(w, "%d\t%s\t%s\t%d × %d\t%d\t%.2f\t%.2f\t%.1f\t%s: %s\n", i+1, l.Kernel, l.Pos, l.Grid, l.Block, l.Shared,
			float64(l.FLOPs)/1e6, float64(l.Bytes)/1e6, l.PredictedUS, l.Layer, l.Doc)
	}
}

func chipKeys() string {
	var keys []string
	for i := range runtime.Chips {
		keys = append(keys, runtime.Chips[i].Key)
	}
	return strings.Join(keys, ", ")
}
