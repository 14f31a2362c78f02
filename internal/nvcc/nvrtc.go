package nvcc

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// NVRTC is a library. A small C program loads it, so that vitgen itself needs
// neither cgo nor NVRTC's headers; whoever builds trainers has a C compiler.
//
//go:embed nvrtc/call.c
var nvrtcProgram []byte

// openNVRTC asks the library for its version.
func (c *Compiler) openNVRTC(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "vitgen-nvrtc-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out, err := c.callNVRTC(ctx, dir, time.Minute, "version")
	if err != nil {
		return fmt.Errorf("%s cannot be used: %w\n%s", c.Path, err, indent(out))
	}
	c.Version = strings.TrimSpace(out)
	if st, err := os.Stat(c.Path); err == nil {
		c.id = fmt.Sprintf("%d bytes", st.Size())
	}
	return nil
}

func (c *Compiler) runNVRTC(ctx context.Context, dir string, j *job, output string) (string, error) {
	args := append([]string{j.kind, SourceName, output, "-I."}, c.flags(j)...)
	return c.callNVRTC(ctx, dir, j.timeout, args...)
}

// callNVRTC builds the program in dir and runs it there.
func (c *Compiler) callNVRTC(ctx context.Context, dir string, timeout time.Duration, args ...string) (string, error) {
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	if _, err := exec.LookPath(cc[0]); err != nil {
		return "", fmt.Errorf("NVRTC is called through a C program, and there is no C compiler %s: install gcc, or name one in CC", cc[0])
	}
	source, program := filepath.Join(dir, "vitgen_nvrtc.c"), filepath.Join(dir, "vitgen_nvrtc")
	if err := os.WriteFile(source, nvrtcProgram, 0o666); err != nil {
		return "", err
	}
	build := append(cc[1:], "-O1", "-o", program, source, "-ldl")
	if out, err := execute(ctx, dir, time.Minute, nil, cc[0], build...); err != nil {
		return out, fmt.Errorf("%s could not build the program that calls NVRTC: %w", cc[0], err)
	}
	// NVRTC loads a second library from its own folder by bare name.
	paths := filepath.Dir(c.Path)
	if old := os.Getenv("LD_LIBRARY_PATH"); old != "" {
		paths += ":" + old
	}
	out, err := execute(ctx, dir, timeout, []string{"LD_LIBRARY_PATH=" + paths}, program, append([]string{c.Path}, args...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = errors.New("compilation failed")
	}
	return out, err
}
