// Package trainer is the command line of a generated trainer: train, eval,
// verify, bench and info over a compiled model. It wires data, session and
// files together; what it runs was decided by the compiler.
package trainer

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agnivade/levenshtein"
	"github.com/mattn/go-isatty"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data/fetch"
)

// Main runs the trainer of a model with the process's arguments and exits:
// 0 on success, 1 on failure, 2 on wrong usage. The first interrupt makes
// training finish its step and save; the second one kills.
func Main(m *runtime.Model) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(Run(ctx, m, os.Args[1:], os.Stdout, os.Stderr))
}

// Run runs one command with its output on the writers given, and returns the
// exit status. Training stops early when ctx is done.
func Run(ctx context.Context, m *runtime.Model, args []string, stdout, stderr io.Writer) int {
	a := &app{ctx: ctx, model: m, in: os.Stdin, out: stdout, err: stderr, prog: filepath.Base(os.Args[0])}
	err := a.dispatch(args)
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\n", a.prog, err)
		return 2
	}
	fmt.Fprintf(stderr, "%s: %v\n", a.prog, err)
	return 1
}

// app is one run of the program.
type app struct {
	ctx      context.Context
	model    *runtime.Model
	in       io.Reader
	out, err io.Writer
	prog     string
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

type command struct {
	name, args, summary string
	run                 func(*app, []string) error
}

func commands() []command {
	return []command{
		{"train", "[flags]", "train, validate each epoch, write curves, metrics and weights", (*app).train},
		{"eval", "--weights FILE [flags]", "validation loss and accuracy of a weights file, by class, and its confusion matrix", (*app).eval},
		{"predict", "--weights FILE IMAGE…|DIR…", "what is in pictures: the likeliest classes; fails if any is unreadable", (*app).predict},
		{"export", "--weights FILE [flags]", "write weights for other programs: ONNX, safetensors", (*app).export},
		{"verify", "--golden FILE… [flags]", "compare every number with golden files", (*app).verify},
		{"find-lr", "[flags]", "train with a rising learning rate, draw the loss, and suggest a rate", (*app).findLR},
		{"replay", "CHECKPOINT|RUN [flags]", "make the updates that led to a checkpoint again, and compare bit for bit", (*app).replay},
		{"bench", "[flags]", "time training steps or inference, and each kernel, on random data", (*app).bench},
		{"fetch", "[NAME] [flags]", "download a data set: " + strings.Join(fetch.Names(), ", "), (*app).fetch},
		{"info", "[flags]", "parameters, FLOPs, memory and kernels", (*app).info},
	}
}

func (a *app) dispatch(args []string) error {
	if len(args) == 0 {
		a.help(a.err)
		return usagef("a command is missing")
	}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		a.help(a.out)
		return nil
	}
	best, distance := "", len(name)/2+1
	for _, c := range commands() {
		if c.name == name {
			return c.run(a, args[1:])
		}
		if d := levenshtein.ComputeDistance(name, c.name); d < distance {
			best, distance = c.name, d
		}
	}
	if best != "" {
		return usagef("unknown command %q; did you mean %s?", name, best)
	}
	return usagef("unknown command %q; %s help lists them", name, a.prog)
}

func (a *app) help(w io.Writer) {
	fmt.Fprintf(w, "%s trains the model %s (%s).\n\n", a.prog, a.model.Name, a.model.SpecFile)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %s %-7s %-26s %s\n", a.prog, c.name, c.args, c.summary)
	}
	fmt.Fprintf(w, "\n%s COMMAND -h lists a command's flags.\n", a.prog)
}

// flags starts a command's flag set.
func (a *app) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads flags and returns the other arguments, which may stand between
// them; more than most is an error.
func (a *app) parse(fs *flag.FlagSet, args []string, most int) ([]string, error) {
	var others []string
	for {
		switch err := fs.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			a.commandHelp(fs)
			return nil, err
		case err != nil:
			return nil, usageError{fmt.Errorf("%s: %w", fs.Name(), err)}
		}
		if fs.NArg() == 0 {
			break
		}
		others, args = append(others, fs.Arg(0)), fs.Args()[1:]
	}
	if len(others) > most {
		return nil, usagef("%s: unexpected argument %q", fs.Name(), others[most])
	}
	return others, nil
}

func (a *app) commandHelp(fs *flag.FlagSet) {
	for _, c := range commands() {
		if c.name == fs.Name() {
			fmt.Fprintf(a.out, "%s %s %s\n    %s\n\n", a.prog, c.name, c.args, c.summary)
		}
	}
	fs.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(a.out, "  --%s %s\n        %s", f.Name, value, usage)
		if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
			fmt.Fprintf(a.out, " (default %s)", f.DefValue)
		}
		fmt.Fprintln(a.out)
	})
}

// placement are the flags that say where to run.
type placement struct {
	device  string
	threads int
	seed    uint64
}

func (p *placement) define(fs *flag.FlagSet) {
	fs.StringVar(&p.device, "device", "auto", "`device` to run on: auto, cpu or cuda:N")
	fs.IntVar(&p.threads, "threads", 0, "`number` of CPU threads; 0: one for each CPU")
}

func (p *placement) defineSeed(fs *flag.FlagSet) {
	fs.Uint64Var(&p.seed, "seed", 0, "`seed` of initialization, dropout and order; 0: the spec's")
}

// open starts a session and says where it runs.
func (a *app) open(p placement) (*runtime.Session, error) {
	s, err := runtime.NewSession(a.model, runtime.Options{
		Device: p.device, Threads: p.threads, Seed: p.seed,
		Warn: a.warn,
	})
	if err != nil {
		return nil, err
	}
	if want := a.model.Train.Precision; want != "" && want != s.Precision() {
		fmt.Fprintf(a.err, "%s: the spec asks for %s; %s computes in %s\n", a.prog, want, s.Device(), s.Precision())
	}
	return s, nil
}

// warn says what is not as it should be, but no reason to stop.
func (a *app) warn(text string) { fmt.Fprintf(a.err, "%s: %s\n", a.prog, text) }

// banner introduces a run.
func (a *app) banner(s *runtime.Session) string {
	return fmt.Sprintf("%s: %s parameters on %s, %s", a.model.Name, comma(int64(a.model.ParamCount())), s.Device(), s.Precision())
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// comma writes 6457866 as 6,457,866.
func comma(n int64) string {
	if n < 0 {
		return "-" + comma(-n)
	}
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return b.String()
}
