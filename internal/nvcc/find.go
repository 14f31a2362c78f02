package nvcc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// ErrNone is what Find returns when it is told, by "none", to use no compiler.
var ErrNone = errors.New("no CUDA compiler is to be used")

// ErrNotFound is what Find returns where there is no compiler. Its text says
// what to install.
var ErrNotFound = errors.New("no CUDA compiler found; install the CUDA toolkit, or pip install nvidia-cuda-nvcc, or name nvcc or libnvrtc.so with --nvcc or VITGEN_NVCC")

// pipPackages are all that nvcc needs; the first depends on the others.
const pipPackages = "nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt and nvidia-cuda-runtime, of the same CUDA release"

// Venv is the folder that `make cuda-toolchain` installs pinned wheels in.
const Venv = ".venv-cuda"

// Find returns the first compiler of these that runs:
//
//   - what explicit names: nvcc, libnvrtc.so, or a CUDA installation's folder;
//   - likewise what VITGEN_NVCC names;
//   - nvcc in PATH, in CUDA_HOME, CUDA_PATH or /usr/local/cuda, or in the Python
//     packages of .venv-cuda (here or in a folder above), of the active virtual
//     environment, or of python3;
//   - NVRTC in the same places, and where the linker looks.
//
// A compiler that is named must work; one that is found and does not run is
// passed over.
func Find(ctx context.Context, explicit string) (*Compiler, error) {
	for _, given := range []struct{ from, name string }{{"--nvcc", explicit}, {"VITGEN_NVCC", os.Getenv("VITGEN_NVCC")}} {
		if given.name == "none" {
			return nil, ErrNone
		}
		if given.name != "" {
			c, err := named(ctx, given.name)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", given.from, given.name, err)
			}
			return c, nil
		}
	}
	var broken error
	for _, p := range places() {
		c, err := open(ctx, p.kind, p.path)
		if err == nil {
			return c, nil
		}
		if broken == nil {
			broken = err
		}
	}
	if broken != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNotFound, broken)
	}
	return nil, ErrNotFound
}

// named opens what a person named.
func named(ctx context.Context, name string) (*Compiler, error) {
	st, err := os.Stat(name)
	if err != nil {
		found, lookErr := exec.LookPath(name)
		if lookErr != nil {
			return nil, errors.New("no such file or command")
		}
		name = found
	} else if st.IsDir() {
		all := append(inHome(name), inPackages(name)...)
		if len(all) == 0 {
			return nil, errors.New("neither bin/nvcc nor libnvrtc.so is in this folder")
		}
		return open(ctx, all[0].kind, all[0].path)
	}
	if strings.Contains(filepath.Base(name), "nvrtc") {
		return open(ctx, NVRTC, name)
	}
	return open(ctx, NVCC, name)
}

// place is where a compiler seems to be.
type place struct {
	kind Kind
	path string
}

// places lists what there is, nvcc first.
func places() []place {
	var all []place
	if path, err := exec.LookPath("nvcc"); err == nil {
		all = append(all, place{NVCC, path})
	}
	for _, home := range []string{os.Getenv("CUDA_HOME"), os.Getenv("CUDA_PATH"), "/usr/local/cuda"} {
		if home != "" {
			all = append(all, inHome(home)...)
		}
	}
	for _, dir := range sitePackages() {
		all = append(all, inPackages(dir)...)
	}
	for _, dir := range linkerFolders() {
		all = append(all, libraries(dir)...)
	}
	var ordered []place
	for _, kind := range []Kind{NVCC, NVRTC} {
		for _, p := range all {
			if p.kind == kind {
				ordered = append(ordered, p)
			}
		}
	}
	return ordered
}

// inHome looks into a CUDA installation.
func inHome(home string) []place {
	var all []place
	if nvcc := filepath.Join(home, "bin", "nvcc"); isFile(nvcc) {
		all = append(all, place{NVCC, nvcc})
	}
	for _, lib := range []string{"lib64", "lib", filepath.Join("targets", "*", "lib")} {
		all = append(all, libraries(filepath.Join(home, lib))...)
	}
	return all
}

// inPackages looks into a folder of Python packages. Up to CUDA 12 every
// component had a folder of its own, from 13 on they share one.
func inPackages(dir string) []place {
	var all []place
	for _, pattern := range []string{"cu[0-9]*", "cuda_nvcc", "cuda_nvrtc"} {
		homes, _ := filepath.Glob(filepath.Join(dir, "nvidia", pattern)) // the pattern is valid, dir aside
		for _, home := range homes {
			all = append(all, inHome(home)...)
		}
	}
	return all
}

// libraries finds NVRTC in the folders of a pattern, the newest first.
func libraries(folders string) []place {
	var all []place
	for _, name := range []string{"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"} {
		found, _ := filepath.Glob(filepath.Join(folders, name))
		for _, path := range found {
			all = append(all, place{NVRTC, path})
		}
	}
	return all
}

// sitePackages lists folders of Python packages.
func sitePackages() []string {
	var dirs []string
	in := func(env string) {
		found, _ := filepath.Glob(filepath.Join(env, "lib", "python3*", "site-packages"))
		dirs = append(dirs, found...)
	}
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			in(filepath.Join(dir, Venv))
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	for _, name := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if env := os.Getenv(name); env != "" {
			in(env)
		}
	}
	return append(dirs, pythonPath()...)
}

// pythonPath asks python3 where it takes packages from.
func pythonPath() []string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "python3", "-c", `import sys; print("\n".join(sys.path))`).Output()
	if err != nil {
		return nil // no Python, no packages
	}
	var dirs []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); filepath.IsAbs(line) {
			dirs = append(dirs, line)
		}
	}
	return dirs
}

// linkerFolders lists where shared libraries lie.
func linkerFolders() []string {
	dirs := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	if triple != "" {
		dirs = append(dirs, "/usr/lib/"+triple)
	}
	return append(dirs, "/usr/lib64", "/usr/lib")
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
