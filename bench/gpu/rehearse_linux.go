package main

import (
	"context"
	"path/filepath"

	"github.com/vitgen/vitgen/bench/probes"
	"github.com/vitgen/vitgen/sim"
)

// simulated builds the device of a rehearsal: its driver, the kernels of each
// model for it, and the probes.
func (b *builder) simulated(ctx context.Context) error {
	cache, err := filepath.Abs(filepath.Join(b.work, "sim"))
	if err != nil {
		return err
	}
	logf("building the simulated device\n")
	library, err := sim.BuildDriver(cache)
	if err != nil {
		return err
	}
	b.manifest.Driver = filepath.Dir(library)
	for _, m := range b.manifest.Models {
		logf("building kernels of %s for it\n", m.Name)
		if m.Image, err = sim.BuildKernels(filepath.Join(b.dir(m), "kernels.cu"), sim.Options{Cache: cache, Flags: []string{"-O1"}}); err != nil {
			return err
		}
	}
	if b.manifest.Probes, err = filepath.Abs(filepath.Join(b.out, "probes")); err != nil {
		return err
	}
	return probes.BuildSim(ctx, ".", b.manifest.Probes, false)
}
