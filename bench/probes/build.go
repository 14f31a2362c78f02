package probes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const source = "bench/probes/probes.cu" // from the repository's root

// BuildSim compiles the probes for the kernel simulator. checked: its faults
// are looked for as well.
func BuildSim(ctx context.Context, root, program string, checked bool) error {
	runtime, err := filepath.Glob(filepath.Join(root, "sim/runtime/*.cc"))
	if err != nil {
		return err
	}
	include := []string{"-std=c++17", "-fvisibility=hidden", "-I", filepath.Join(root, "sim/include")}
	object := program + ".o"
	defer os.Remove(object)
	kernels := slices.Concat(include, []string{"-x", "c++", "-DVG_SIM", "-O1", "-fno-strict-aliasing", "-c", filepath.Join(root, source), "-o", object})
	if checked {
		kernels = append(kernels, "-g", "-fsanitize=thread,alignment")
	}
	if err := run(ctx, "g++", kernels...); err != nil {
		return err
	}
	return run(ctx, "g++", slices.Concat(include, []string{"-O2", "-o", program, object}, runtime, []string{"-ldl", "-lpthread"})...)
}

// BuildCUDA compiles them with nvcc for one chip, such as sm_90.
func BuildCUDA(ctx context.Context, nvcc, root, program, arch string) error {
	return run(ctx, nvcc, "-std=c++17", "-allow-unsupported-compiler", "-arch="+arch, "-o", program, filepath.Join(root, source))
}

func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
