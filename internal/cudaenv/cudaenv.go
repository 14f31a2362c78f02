// Package cudaenv prepares what the Go tool needs to build with -tags cuda:
// runtime/cuda/link's header and library in a folder, and the settings that
// point cgo at them. make, scripts/cuda-env.sh and vitgen build all use it, so
// that none of them needs CUDA to be installed.
package cudaenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/runtime/cuda/link"
)

// Env puts include/cuda.h and libcuda.a into dir, unless they are there
// already, and returns CGO_CFLAGS and CGO_LDFLAGS as NAME=value. The values
// begin with the paths to dir, since package cu adds paths of its own (such as
// /usr/local/cuda/include) behind them, and keep what the caller's environment
// has.
func Env(dir string) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := prepare(dir); err != nil {
		return nil, fmt.Errorf("preparing the CUDA header and stub library: %w", err)
	}
	cflags, err := setting("CGO_CFLAGS", "-I"+filepath.Join(dir, "include"))
	if err != nil {
		return nil, err
	}
	ldflags, err := setting("CGO_LDFLAGS", "-L"+dir)
	if err != nil {
		return nil, err
	}
	return []string{cflags, ldflags}, nil
}

// DefaultDir is the folder for users of Env who have no better place: one for
// each version of the sources, below the user's cache.
func DefaultDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the CUDA stub library: %w", err)
	}
	return filepath.Join(cache, "vitgen", "cuda-"+version()[:12]), nil
}

// setting is a variable of cgo's with one flag put first. Unset, the variable
// means "-O2 -g", which setting it must not lose.
func setting(name, flag string) (string, error) {
	if strings.ContainsAny(flag, `'"`) {
		return "", fmt.Errorf("%s cannot name a path with a quote: %s", name, flag)
	}
	if strings.ContainsAny(flag, " \t") {
		flag = "'" + flag + "'" // as the Go tool splits it
	}
	rest, set := os.LookupEnv(name)
	if !set {
		rest = "-O2 -g"
	}
	if rest == flag || strings.HasPrefix(rest, flag+" ") {
		return name + "=" + rest, nil // ours already
	}
	return name + "=" + flag + " " + rest, nil
}

// prepare writes the header and makes the library. Each file appears whole or
// not at all, so several callers do not disturb each other.
func prepare(dir string) error {
	header, lib := filepath.Join(dir, "include", "cuda.h"), filepath.Join(dir, "libcuda.a")
	stamp := filepath.Join(dir, "version")
	made, err := os.ReadFile(stamp)
	if err == nil && string(made) == version() && exists(header) && exists(lib) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(header), 0o755); err != nil {
		return err
	}
	if err := renameio.WriteFile(header, link.Header, 0o644); err != nil {
		return err
	}
	if err := compile(dir, lib); err != nil {
		return err
	}
	return renameio.WriteFile(stamp, []byte(version()), 0o644)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// compile makes the library beside its place and moves it there.
func compile(dir, lib string) error {
	temp, err := os.MkdirTemp(dir, "stub")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	source, object, archive := filepath.Join(temp, "driver.c"), filepath.Join(temp, "driver.o"), filepath.Join(temp, "libcuda.a")
	if err := os.WriteFile(source, link.Stub, 0o644); err != nil {
		return err
	}
	cc, err := compiler()
	if err != nil {
		return err
	}
	args := append(cc[1:], "-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-I"+filepath.Join(dir, "include"), "-c", source, "-o", object)
	if err := run(cc[0], args...); err != nil {
		return err
	}
	if err := run("ar", "rcs", archive, object); err != nil {
		return err
	}
	return os.Rename(archive, lib)
}

// compiler is the C compiler that cgo uses.
func compiler() ([]string, error) {
	if cc := strings.Fields(os.Getenv("CC")); len(cc) > 0 {
		return cc, nil
	}
	out, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		return nil, fmt.Errorf("go env CC: %w", err)
	}
	cc := strings.Fields(string(out))
	if len(cc) == 0 {
		return nil, errors.New("go env CC names no C compiler")
	}
	return cc, nil
}

// run runs a tool; its output is part of the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
