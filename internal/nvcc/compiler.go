package nvcc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kind tells the two compilers apart.
type Kind uint8

const (
	NVCC Kind = iota
	NVRTC
)

func (k Kind) String() string { return [...]string{"nvcc", "nvrtc"}[k] }

// Compiler is a CUDA compiler of this machine.
type Compiler struct {
	Kind    Kind
	Path    string // of nvcc, or of libnvrtc.so
	Version string // 13.0.88; NVRTC tells 13.0 only
	id      string // what tells two builds of NVRTC apart
}

func (c *Compiler) String() string {
	return fmt.Sprintf("%s %s (%s)", c.Kind, c.Version, c.Path)
}

// CUDA 11 brought C++17 and sm_80.
const oldestMajor = 11

var (
	nvccVersion  = regexp.MustCompile(`\bV(\d+\.\d+\.\d+)\b`)
	majorVersion = regexp.MustCompile(`^\d+`)
)

// open asks a compiler for its version, and so whether it runs.
func open(ctx context.Context, kind Kind, path string) (*Compiler, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c := &Compiler{Kind: kind, Path: path}
	if kind == NVCC {
		out, err := execute(ctx, "", time.Minute, nil, path, "--version")
		if err != nil {
			return nil, fmt.Errorf("%s does not run: %w", path, err)
		}
		m := nvccVersion.FindStringSubmatch(out)
		if m == nil {
			return nil, fmt.Errorf("%s is not nvcc: its --version names none", path)
		}
		c.Version = m[1]
	} else if err := c.openNVRTC(ctx); err != nil {
		return nil, err
	}
	if major := number(majorVersion.FindString(c.Version)); major < oldestMajor {
		return nil, fmt.Errorf("%s is too old: it takes CUDA %d or newer", c, oldestMajor)
	}
	return c, nil
}

// job is one run of a compiler: the source to ptx or, by NVRTC, to cubin; or
// ptx to cubin, by nvcc.
type job struct {
	kind, arch string
	source     []byte
	headers    map[string][]byte
	ptx        []byte
	timeout    time.Duration
}

// flags are the flags that matter for the result.
func (c *Compiler) flags(j *job) []string {
	real, virtual := j.arch, strings.Replace(j.arch, "sm_", "compute_", 1)
	switch {
	case c.Kind == NVRTC && j.kind == "cubin":
		return []string{"--std=c++17", "--gpu-architecture=" + real}
	case c.Kind == NVRTC:
		return []string{"--std=c++17", "--gpu-architecture=" + virtual}
	case j.kind == "cubin":
		return []string{"-cubin", "-arch=" + real, "-Xptxas=-v"}
	}
	// Only device code is made, so any version of the host compiler will do.
	return []string{"-ptx", "-std=c++17", "-arch=" + virtual, "-allow-unsupported-compiler"}
}

// key names the result in a cache: everything it depends on, and where nvcc is
// installed is none of it. The host compiler only preprocesses.
func (c *Compiler) key(j *job) string {
	h := sha256.New()
	add := func(s string) { fmt.Fprintf(h, "%d:%s\n", len(s), s) }
	for _, s := range []string{"1", c.Kind.String(), c.Version, c.id, j.kind, j.arch, strings.Join(c.flags(j), " ")} {
		add(s)
	}
	for _, name := range []string{"NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"} {
		add(os.Getenv(name))
	}
	add(string(j.ptx))
	add(string(j.source))
	for _, name := range slices.Sorted(maps.Keys(j.headers)) {
		add(name)
		add(string(j.headers[name]))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// run compiles in a folder of its own.
func (c *Compiler) run(ctx context.Context, j *job) (r result, err error) {
	dir, err := os.MkdirTemp("", "vitgen-cuda-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	input := SourceName
	files := maps.Clone(j.headers)
	if files == nil {
		files = map[string][]byte{}
	}
	files[SourceName] = j.source
	if c.Kind == NVCC && j.kind == "cubin" {
		input = "kernels.ptx"
		files = map[string][]byte{input: j.ptx}
	}
	for name, data := range files {
		if !filepath.IsLocal(name) {
			return r, fmt.Errorf("header %s is not below the source", name)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return r, err
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			return r, err
		}
	}
	output := "kernels." + j.kind + ".out"
	if c.Kind == NVRTC {
		r.Log, err = c.runNVRTC(ctx, dir, j, output)
	} else {
		args := append(c.flags(j), "-o", output, input)
		r.Log, err = execute(ctx, dir, j.timeout, []string{"TMPDIR=" + dir}, c.Path, args...)
	}
	r.Log = strings.ReplaceAll(r.Log, dir+"/", "")
	var missing error
	r.Output, missing = os.ReadFile(filepath.Join(dir, output))
	if err != nil {
		return r, err // with the output, if any: nvcc has ptxas look at PTX that it made
	}
	if missing != nil {
		return r, fmt.Errorf("it wrote no output: %w", missing)
	}
	// Line tables, if NVCC_APPEND_FLAGS asks for them, name the source's folder.
	if j.kind == "ptx" {
		r.Output = bytes.ReplaceAll(r.Output, []byte(dir+"/"), nil)
	}
	return r, nil
}

// maxLog is how much of a compiler's output is kept.
const maxLog = 8 << 20

// execute runs a program and returns what it printed. When its time is over or
// the caller gives up, it ends with all the processes it started.
func execute(ctx context.Context, dir string, timeout time.Duration, env []string, name string, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.String(), nil
	case ctx.Err() != nil:
		return out.String(), context.Cause(ctx)
	case limited.Err() != nil:
		return out.String(), fmt.Errorf("it did not finish in %v", timeout)
	}
	return out.String(), err
}

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), maxLog-h.Len())])
	return len(p), nil
}
