package cuda

import (
	"cmp"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// capability is a chip's compute capability: 90 for 9.0.
type capability int

func (c capability) String() string { return fmt.Sprintf("sm_%d", int(c)) }

// image is one compiled form of a model's kernels.
type image struct {
	file string
	arch capability
	// suffix limits where it runs: "a" to that very chip, "f" to its family.
	suffix string
	cubin  bool // machine code; else PTX, which the driver compiles
}

var imageName = regexp.MustCompile(`^kernels\.sm_(\d{2,3})([af]?)\.(ptx|cubin)$`)

// findImages lists the compiled kernels in a generated package's files.
func findImages(files fs.FS) ([]image, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("embedded kernels: %w", err)
	}
	var found []image
	for _, e := range entries {
		m := imageName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		arch, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, fmt.Errorf("embedded kernels: %s: %w", e.Name(), err)
		}
		found = append(found, image{e.Name(), capability(arch), m[2], m[3] == "cubin"})
	}
	return found, nil
}

// runsOn reports whether a chip can run the image, by NVIDIA's rules: machine
// code runs on chips of the same major version that are not older, PTX on every
// chip that is not older, with the limits a suffix sets.
func (i image) runsOn(chip capability) bool {
	sameMajor := i.arch/10 == chip/10
	switch {
	case i.suffix == "a":
		return i.arch == chip
	case i.cubin || i.suffix == "f":
		return sameMajor && i.arch <= chip
	}
	return i.arch <= chip
}

// choose returns the images to try on a chip, the best one first: machine code
// for the chip itself, then PTX for the newest architecture, then machine code
// for a relative. Later ones serve where the driver refuses the first, as one
// does that is older than the compiler that made the PTX.
func choose(images []image, chip capability) []image {
	rank := func(i image) int {
		switch {
		case i.cubin && i.arch == chip:
			return 0
		case !i.cubin:
			return 1
		}
		return 2
	}
	var fit []image
	for _, i := range images {
		if i.runsOn(chip) {
			fit = append(fit, i)
		}
	}
	slices.SortStableFunc(fit, func(a, b image) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.arch, a.arch), cmp.Compare(b.suffix, a.suffix))
	})
	return fit
}

// unfit says why none of the images runs on a chip, and what to do.
func unfit(images []image, chip capability, device, spec string) error {
	how := fmt.Sprintf("`vitgen build %s --target cpu,cuda`", spec)
	if len(images) == 0 {
		return fmt.Errorf("no compiled kernels are embedded in this program: build it with %s where nvcc or NVRTC can be found "+
			"(`pip install nvidia-cuda-nvcc` brings nvcc)", how)
	}
	var names []string
	oldest := images[0].arch
	for _, i := range images {
		names = append(names, i.file)
		oldest = min(oldest, i.arch)
	}
	list := strings.Join(names, ", ")
	if chip < oldest {
		return fmt.Errorf("%s is too old: it is an %s, and the embedded kernels (%s) need %s or newer", device, chip, list, oldest)
	}
	return fmt.Errorf("the embedded kernels (%s) do not run on %s, an %s: build with %s --arch %s", list, device, chip, how, chip)
}
