package trainer

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows work going by: a bar on a terminal, elsewhere a plain line now
// and then.
type progress struct {
	w        io.Writer
	terminal bool
	bar      *progressbar.ProgressBar
	what     string
	lastLine time.Time
}

// Plain lines stand at the end of an interval, but not closer than lineEvery, so
// that logs stay short; nor is there less than one in lineAtLeast, so that a
// slow run is seen to live.
const (
	lineEvery   = 10 * time.Second
	lineAtLeast = time.Minute
)

func newProgress(w io.Writer) progress {
	return progress{w: w, terminal: terminal(w), lastLine: time.Now()}
}

func (p *progress) start(what string, steps int) {
	if !p.terminal {
		return
	}
	p.what = what
	p.bar = progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(p.w),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(20),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(false), // of this bar, which is part of a run
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// step is one step done; more is what there is to say besides the loss. The bar
// is decoration: its errors are not ours.
func (p *progress) step(loss float64, more ...string) {
	if p.bar == nil {
		return
	}
	text := fmt.Sprintf("%s  loss %.4f", p.what, loss)
	for _, m := range more {
		text += "  " + m
	}
	p.bar.Describe(text)
	_ = p.bar.Add(1)
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
	p.lastLine = time.Now()
}

// slowLine writes a line where there is no bar, unless one was written lately.
func (p *progress) slowLine(w io.Writer, line string) { p.lineAfter(lineEvery, w, line) }

// lineAfter writes a line where there is no bar, if the last one is so long ago.
func (p *progress) lineAfter(d time.Duration, w io.Writer, line string) {
	if p.terminal || time.Since(p.lastLine) < d {
		return
	}
	p.lastLine = time.Now()
	fmt.Fprintln(w, line)
}

// outlook is when the run ends if it goes on as it did since this process began,
// validations and saves included: "12m30s left".
func (t *training) outlook() string {
	made := t.updates - t.begunAt
	if made < 1 {
		return ""
	}
	return duration(time.Since(t.begun)/time.Duration(made)*time.Duration(t.total-t.updates)) + " left"
}

// duration writes a time in its two largest units.
func duration(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	switch day := 24 * time.Hour; {
	case d >= day:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
