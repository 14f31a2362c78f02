package trainer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/report"
)

// evalResult is what the eval command has to say, in eval.json.
type evalResult struct {
	Model     string `json:"model"`
	Spec      string `json:"spec"`
	Weights   string `json:"weights"`
	Data      string `json:"data"`
	Device    string `json:"device"`
	Precision string `json:"precision"`
	Samples   int    `json:"samples"`
	Skipped   int    `json:"skipped"` // samples that cannot be read
	Metrics   string `json:"metrics"` // which of the two are loss and accuracy
	scoreResult
	Exact     scoreResult     `json:"exact"` // means over samples
	D2L       scoreResult     `json:"d2l"`   // means of batch means
	Classes   []classResult   `json:"classes"`
	Confusion [][]int         `json:"confusion,omitempty"` // [label][guess] samples
	Mistakes  []mistakeResult `json:"mistakes"`            // those that the model is surest of
	Files     []string        `json:"files"`
}

type scoreResult struct {
	Loss     number `json:"loss"`
	Accuracy number `json:"accuracy"` // 0 … 1
}

type classResult struct {
	Name     string `json:"name"`
	Samples  int    `json:"samples"`
	Correct  int    `json:"correct"`
	Accuracy number `json:"accuracy"` // null without samples
}

type mistakeResult struct {
	Sample      int    `json:"sample"` // number in the validation part
	Label       string `json:"label"`
	Guess       string `json:"guess"`
	Probability number `json:"probability"` // the model's, of its guess
}

// number is a float64 that is null in JSON where it is none.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if v := float64(n); math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// eval is the command.
func (a *app) eval(args []string) error {
	fs := a.flags("eval")
	var where placement
	var from source
	where.define(fs)
	from.define(fs)
	from.warn = a.warn
	var trained weightsFlag
	trained.define(fs)
	out := fs.String("out", "", "`directory` for eval.json, confusion.png and .svg, and mistakes.png; empty: that of the weights, with -eval for its ending")
	asJSON := fs.Bool("json", false, "print JSON: what eval.json says")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	if err := from.settle(a.model); err != nil {
		return err
	}
	weights, err := trained.file("eval")
	if err != nil {
		return err
	}
	sets, err := from.load(a.model, 0)
	if err != nil {
		return err
	}
	s, err := a.openTrained(where, weights)
	if err != nil {
		return err
	}
	defer s.Close()
	sets.ctx = a.ctx
	a.compareClasses(s.Classes(), sets.Val.Classes())
	if *out == "" {
		*out = strings.TrimSuffix(weights, ".safetensors") + "-eval"
	}
	// Made before the work, so that an evaluation of hours is not in vain.
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return fmt.Errorf("eval: %w; give another directory with --out", err)
	}
	e, err := a.evaluateAloud(s, sets)
	if err != nil {
		os.Remove(*out) // if it is empty
		if a.ctx.Err() != nil {
			err = errors.New("interrupted; nothing was written")
		}
		return err
	}
	r := a.evalResult(e, s, sets, from.metrics)
	r.Weights = weights
	if r.Files, err = e.write(*out, r, sets); err != nil {
		return err
	}
	if *asJSON {
		text, err := r.json()
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	}
	fmt.Fprintln(a.out, a.banner(s))
	r.print(a.out, e)
	return nil
}

// compareClasses warns if weights were trained on other classes than the data
// set has: their labels then mean something else.
func (a *app) compareClasses(trained, data []string) {
	if len(trained) == 0 || slices.Equal(trained, data) {
		return
	}
	list := func(names []string) string {
		if len(names) > 12 {
			return fmt.Sprintf("%s, … (%d)", strings.Join(names[:12], ", "), len(names))
		}
		return strings.Join(names, ", ")
	}
	fmt.Fprintf(a.err, "%s: the weights were trained on the classes %s; the data set has %s\n", a.prog, printable(list(trained)), printable(list(data)))
}

// evalResult puts an evaluation into words.
func (a *app) evalResult(e *evaluation, s *runtime.Session, l *loaders, metrics string) *evalResult {
	of := func(s score) scoreResult { return scoreResult{number(s.loss), number(s.accuracy)} }
	names := e.names(l)
	r := &evalResult{
		Model: a.model.Name, Spec: a.model.SpecFile, Data: l.Name,
		Device: s.Device(), Precision: s.Precision(), Samples: e.samples, Skipped: l.val.Skipped(), Metrics: metrics,
		scoreResult: of(e.score(metrics == "d2l")), Exact: of(e.exact), D2L: of(e.d2l),
		Mistakes: []mistakeResult{},
	}
	for k, name := range names {
		r.Classes = append(r.Classes, classResult{name, e.perClass[k], e.correct[k], number(float64(e.correct[k]) / float64(e.perClass[k]))})
	}
	if e.confusion != nil {
		for _, row := range e.confusion[:len(names)] {
			r.Confusion = append(r.Confusion, row[:len(names)])
		}
	}
	for _, m := range e.mistakes {
		r.Mistakes = append(r.Mistakes, mistakeResult{m.sample, names[m.label], names[m.guess], number(m.probability)})
	}
	return r
}

// json is the result as JSON, indented unless it is large.
func (r *evalResult) json() ([]byte, error) {
	marshal := json.Marshal
	if len(r.Classes) <= 20 {
		marshal = func(v any) ([]byte, error) { return json.MarshalIndent(v, "", "  ") }
	}
	text, err := marshal(r)
	return append(text, '\n'), err
}

// write writes the files of an evaluation and returns their names.
func (e *evaluation) write(dir string, r *evalResult, l *loaders) (files []string, err error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	if r.Confusion != nil {
		var names []string
		for _, c := range r.Classes {
			names = append(names, c.Name)
		}
		title := fmt.Sprintf("%s on %s: %.2f %% of %s right", r.Model, r.Data, 100*e.exact.accuracy, comma(int64(e.samples)))
		if err := report.Confusion(dir, title, names, r.Confusion); err != nil {
			return nil, err
		}
		files = append(files, at("confusion.png"), at("confusion.svg"))
	}
	if sheet := report.Tiles(e.tiles(l)); sheet != nil {
		if err := writePNG(at("mistakes.png"), sheet); err != nil {
			return nil, err
		}
		files = append(files, at("mistakes.png"))
	}
	// What an earlier evaluation left and this one has not is out of date.
	for _, name := range []string{"confusion.png", "confusion.svg", "mistakes.png"} {
		if !slices.Contains(files, at(name)) {
			if err := os.Remove(at(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	files = append(files, at("eval.json"))
	r.Files = files
	text, err := r.json()
	if err != nil {
		return nil, err
	}
	return files, renameio.WriteFile(at("eval.json"), text, 0o644)
}

func writePNG(path string, m image.Image) error {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return renameio.WriteFile(path, b.Bytes(), 0o644)
}

const (
	listedClasses = 60 // up to so many classes, all are listed
	worstClasses  = 20 // of more, these
)

// print writes the result for people.
func (r *evalResult) print(w io.Writer, e *evaluation) {
	fmt.Fprintf(w, "%s: %s validation samples", r.Data, comma(int64(r.Samples)))
	if r.Skipped > 0 {
		fmt.Fprintf(w, ", and %s that cannot be read", comma(int64(r.Skipped)))
	}
	fmt.Fprintln(w)
	how := map[string]string{"exact": "exact: means over samples", "d2l": "d2l: means of batch means"}
	modes := []string{"exact", "d2l"}
	if r.Metrics == "d2l" {
		slices.Reverse(modes)
	}
	for _, mode := range modes {
		s := e.score(mode == "d2l")
		fmt.Fprintf(w, "validation loss %.4f, accuracy %.2f %%  (%s)\n", s.loss, 100*s.accuracy, how[mode])
	}
	fmt.Fprintln(w)
	r.printClasses(w)
	fmt.Fprintf(w, "\nfiles    %s\n", strings.Join(r.Files, ", "))
}

// printClasses writes a table with a row for each class, or for the worst of
// many.
func (r *evalResult) printClasses(w io.Writer) {
	order := make([]int, len(r.Classes))
	for k := range order {
		order[k] = k
	}
	if len(order) > listedClasses {
		order = slices.DeleteFunc(order, func(k int) bool { return r.Classes[k].Samples == 0 })
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.Classes[a].Accuracy, r.Classes[b].Accuracy) })
		order = order[:min(worstClasses, len(order))]
		fmt.Fprintf(w, "the %d worst of %s classes; eval.json has all\n", len(order), comma(int64(len(r.Classes))))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "class\tsamples\tcorrect\taccuracy\tmost often taken for")
	for _, k := range order {
		c := r.Classes[k]
		accuracy := "–"
		if c.Samples > 0 {
			accuracy = fmt.Sprintf("%6.2f %%", 100*c.Accuracy)
		}
		fmt.Fprintf(t, "%s\t%7d\t%7d\t%8s\t%s\n", printable(c.Name), c.Samples, c.Correct, accuracy, r.takenFor(k))
	}
	t.Flush()
}

// takenFor is the wrong guess that a class gets most often, "8 (3×)"; empty if
// there is none.
func (r *evalResult) takenFor(k int) string {
	if r.Confusion == nil || r.Classes[k].Samples == r.Classes[k].Correct {
		return ""
	}
	worst := -1
	for guess, n := range r.Confusion[k] {
		if guess != k && n > 0 && (worst < 0 || n > r.Confusion[k][worst]) {
			worst = guess
		}
	}
	return fmt.Sprintf("%s (%d×)", printable(r.Classes[worst].Name), r.Confusion[k][worst])
}
