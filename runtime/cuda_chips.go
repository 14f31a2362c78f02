package runtime

import (
	"fmt"
	"strings"
	"time"
)

// Chip is what a prediction needs to know of a GPU. Rates are the dense peaks of
// the vendor's data sheets, at boost clock.
type Chip struct {
	Key, Name        string
	FP32, TF32, BF16 float64 // floating-point operations per second: of ordinary cores, of tensor cores
	Bandwidth        float64 // bytes of memory per second
}

// DefaultChip is the one that info predicts for.
const DefaultChip = "h200"

// Chips are the known ones.
var Chips = []Chip{
	{"h200", "NVIDIA H200 SXM", 67e12, 495e12, 989e12, 4.8e12},
	{"h100", "NVIDIA H100 SXM", 67e12, 495e12, 989e12, 3.35e12},
	{"a100", "NVIDIA A100 SXM 80 GB", 19.5e12, 156e12, 312e12, 2.04e12},
	{"rtx4090", "NVIDIA GeForce RTX 4090", 82.6e12, 82.6e12, 165.2e12, 1.01e12},
}

// ChipByKey finds a chip.
func ChipByKey(key string) (*Chip, error) {
	var known []string
	for i := range Chips {
		if Chips[i].Key == key {
			return &Chips[i], nil
		}
		known = append(known, Chips[i].Key)
	}
	return nil, fmt.Errorf("unknown chip %q; there are %s", key, strings.Join(known, ", "))
}

// Predict is the least time a kernel can take: its arithmetic at peak rate, or
// its least traffic at full bandwidth, whichever is longer. Products run on
// tensor cores unless the precision is fp32.
func (c *Chip) Predict(k *Kernel, precision string) time.Duration {
	peak := c.FP32
	if k.Family == "gemm" || k.Family == "attention" {
		switch precision {
		case "tf32":
			peak = c.TF32
		case "bf16":
			peak = c.BF16
		}
	}
	seconds := max(float64(k.FLOPs)/peak, float64(k.Bytes)/c.Bandwidth)
	return time.Duration(seconds * 1e9)
}
