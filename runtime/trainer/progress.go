package trainer

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows an epoch going by: a bar on a terminal, elsewhere a plain
// line now and then.
type progress struct {
	w        io.Writer
	terminal bool
	bar      *progressbar.ProgressBar
	what     string
	lastLine time.Time
}

// lineEvery is the least time between plain lines, so that logs stay short.
const lineEvery = 10 * time.Second

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
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// step is one update done. The bar is decoration: its errors are not ours.
func (p *progress) step(loss float64) {
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("%s  loss %.4f", p.what, loss))
		_ = p.bar.Add(1)
	}
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
	p.lastLine = time.Now()
}

// slowLine writes a line where there is no bar, unless one was written lately.
func (p *progress) slowLine(w io.Writer, line string) {
	if p.terminal || time.Since(p.lastLine) < lineEvery {
		return
	}
	p.lastLine = time.Now()
	fmt.Fprintln(w, line)
}
