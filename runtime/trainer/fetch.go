package trainer

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/vitgen/vitgen/runtime/data"
	"github.com/vitgen/vitgen/runtime/data/fetch"
)

// fetch is the command.
func (a *app) fetch(args []string) error {
	fs := a.flags("fetch")
	dir := fs.String("data-dir", "data", "`directory` for the files")
	mirror := fs.String("mirror", "", "`URL` of a folder with the files, in place of the known servers")
	names, err := a.parse(fs, args, 1)
	if err != nil {
		return err
	}
	name := a.model.Data.Name
	if len(names) > 0 {
		name = names[0]
	}
	could := strings.Join(fetch.Names(), ", ")
	switch {
	case slices.Contains(fetch.Names(), name):
	case name == "":
		return usagef("fetch: %s names no data set; there are %s", a.model.SpecFile, could)
	case slices.Contains(data.Names(), name):
		fmt.Fprintf(a.out, "%s is not fetched from anywhere; what can be fetched is %s\n", name, could)
		return nil
	default:
		return usagef("fetch: unknown data set %q; there are %s", name, could)
	}
	shown := &fetchProgress{out: a.out, bars: a.err, terminal: terminal(a.err)}
	defer shown.clear()
	return fetch.Fetch(a.ctx, name, fetch.Options{Dir: *dir, Mirror: *mirror, Progress: shown})
}

// fetchProgress shows a bar on a terminal, and a line for each file.
type fetchProgress struct {
	out, bars io.Writer
	terminal  bool
	bar       *progressbar.ProgressBar
}

func (p *fetchProgress) Begin(name string, have, size int64) {
	p.clear()
	if !p.terminal {
		return
	}
	if have > 0 {
		name += ", the rest" // the rate is of what comes now
	}
	p.bar = progressbar.NewOptions64(size-have,
		progressbar.OptionSetWriter(p.bars),
		progressbar.OptionSetDescription(name),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// Add moves the bar. It is decoration: its errors are not ours.
func (p *fetchProgress) Add(n int) {
	if p.bar != nil {
		_ = p.bar.Add(n)
	}
}

func (p *fetchProgress) Note(line string) {
	p.clear()
	fmt.Fprintln(p.out, line)
}

func (p *fetchProgress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}
