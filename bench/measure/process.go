// Package measure is what the benchmarks share: how a contestant's process is
// run and what it took, figures of several rounds, tables, and the description
// of the machine. It knows no contestant.
package measure

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Usage is what the kernel says of a finished process.
type Usage struct {
	Wall    time.Duration
	PeakRSS int64 // bytes
}

// DefaultLimit ends a process that hangs; the slowest, a cold torch.compile on a
// slow machine, stays far below.
const DefaultLimit = 15 * time.Minute

// Process is a program to run.
type Process struct {
	Argv, Env []string      // Env is added to this process's environment
	Limit     time.Duration // 0: DefaultLimit
	Log       io.Writer     // gets both outputs as they come; nil: nobody
}

// Run runs it to its end and returns its standard output. What it printed on
// standard error is part of the error if it fails and is dropped otherwise.
func (p Process) Run(ctx context.Context) ([]byte, Usage, error) {
	limit := p.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, p.Argv[0], p.Argv[1:]...)
	cmd.Env = append(os.Environ(), p.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if p.Log != nil {
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, p.Log), io.MultiWriter(&stderr, p.Log)
	}
	// The helpers that a process leaves behind may hold its outputs open.
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	err := cmd.Run()
	u := Usage{Wall: time.Since(began)}
	if cmd.ProcessState != nil {
		u.PeakRSS = maxRSS(cmd.ProcessState)
	}
	if err != nil {
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case limited.Err() != nil:
			err = fmt.Errorf("ended after %v: %w", limit, limited.Err())
		}
		return stdout.Bytes(), u, fmt.Errorf("%s: %w%s", strings.Join(p.Argv, " "), err, tail(stderr.String()))
	}
	return stdout.Bytes(), u, nil
}

// maxRSS is the most memory a process had resident, in bytes, or the largest of
// the children it waited for if one had more.
func maxRSS(p *os.ProcessState) int64 {
	r, ok := p.SysUsage().(*syscall.Rusage)
	switch {
	case !ok:
		return 0
	case runtime.GOOS == "darwin":
		return r.Maxrss
	}
	return r.Maxrss * 1024
}

// tail is the end of an error output, where Python and Go put the reason.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if lines[0] == "" {
		return ""
	}
	return "\n\t" + strings.Join(lines[max(0, len(lines)-8):], "\n\t")
}
