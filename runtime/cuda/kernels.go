//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mumax/3/cuda/cu"
)

// load loads the kernels and looks each of them up.
func (d *device) load(chip cu.Device) {
	d.module = d.loadImage(chip)
	limit := chip.Attribute(maxSharedOptin)
	d.functions = make([]cu.Function, len(d.cuda.Kernels))
	for i := range d.cuda.Kernels {
		k := &d.cuda.Kernels[i]
		if r := try(func() { d.functions[i] = d.module.GetFunction(k.Name) }); r != cu.SUCCESS {
			panic(failure{fmt.Errorf("%s: the loaded kernels have no %s (%s): %s; they were compiled from another model or version",
				d.label, k.Name, k.Pos, describe(r))})
		}
		// Asking for an attribute also makes the driver load the function now,
		// and not in the middle of a recording.
		if most := d.functions[i].GetAttribute(cu.FUNC_A_MAX_THREADS_PER_BLOCK); k.Block > most {
			panic(failure{fmt.Errorf("%s: kernel %s (%s: %s) is launched with blocks of %d threads, and compiled to something that allows %d",
				d.label, k.Name, k.Pos, k.Doc, k.Block, most)})
		}
		const without = 48 << 10 // may be had without asking
		if k.Shared <= without {
			continue
		}
		if k.Shared > limit {
			panic(failure{fmt.Errorf("%s: kernel %s (%s: %s) needs %d bytes of shared memory for a block, and there are %d: compile for this chip",
				d.label, k.Name, k.Pos, k.Doc, k.Shared, limit)})
		}
		allowShared(d.functions[i], k.Shared)
	}
}

func (d *device) loadImage(chip cu.Device) cu.Module {
	if file := os.Getenv("VITGEN_CUDA_IMAGE"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			panic(failure{fmt.Errorf("VITGEN_CUDA_IMAGE: %w", err)})
		}
		m, err := loadModule(text)
		if err != nil {
			panic(failure{fmt.Errorf("%s: VITGEN_CUDA_IMAGE: %s: %w", d.label, file, err)})
		}
		return m
	}
	major, minor := chip.ComputeCapability()
	have := capability(10*major + minor)
	var files fs.FS
	var images []image
	if d.cuda.Images != nil {
		files = d.cuda.Images()
	}
	if files != nil {
		var err error
		if images, err = findImages(files); err != nil {
			panic(failure{err})
		}
	}
	fit := choose(images, have)
	if len(fit) == 0 {
		panic(failure{unfit(images, have, d.chip, d.model.SpecFile)})
	}
	var refused []error
	for _, i := range fit {
		text, err := fs.ReadFile(files, i.file)
		if err != nil {
			panic(failure{fmt.Errorf("embedded kernels: %w", err)})
		}
		m, err := loadModule(text)
		if err == nil {
			return m
		}
		refused = append(refused, fmt.Errorf("%s: %w", i.file, err))
	}
	panic(failure{fmt.Errorf("%s: the driver, of CUDA %s, refuses the embedded kernels; a newer driver, or kernels compiled with `--arch %s`, may help:\n%w",
		d.label, version(cu.Version()), have, errors.Join(refused...))})
}

// version is "12.4" for 12040.
func version(n int) string { return fmt.Sprintf("%d.%d", n/1000, n%1000/10) }
