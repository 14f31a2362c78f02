package trainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// standardInput is the argument that stands for it.
const standardInput = "-"

// predict is the command. It fails if any of the pictures could not be read,
// after all the others were classified.
func (a *app) predict(args []string) error {
	fs := a.flags("predict")
	var where placement
	where.define(fs)
	var trained weightsFlag
	trained.define(fs)
	top := fs.Int("top", 1, "`number` of classes to name, the likeliest first")
	fit := fs.String("fit", "", "`how` pictures get the model's size: crop or stretch; empty: as the spec's data set does")
	asJSON := fs.Bool("json", false, "print a JSON object a picture, one a line")
	names, err := a.parse(fs, args, len(args))
	if err != nil {
		return err
	}
	weights, err := trained.file("predict")
	switch {
	case err != nil:
		return err
	case len(names) == 0:
		return usagef("predict: pictures or directories of pictures are missing; - is one on standard input")
	case *top < 1:
		return usagef("predict: --top is at least 1")
	case *fit != "" && *fit != "crop" && *fit != "stretch":
		return usagef("predict: --fit is crop or stretch, not %q", *fit)
	}
	files, err := pictures(names)
	if err != nil {
		return err
	}
	p, err := preparer(a.model, *fit)
	if err != nil {
		return err
	}
	s, err := a.openTrained(where, weights)
	if err != nil {
		return err
	}
	defer s.Close()
	out := predictions{app: a, session: s, top: *top, failed: 0}
	out.show = out.line
	if *asJSON {
		out.show = out.object
	} else {
		out.width = widthOf(files)
	}
	if err := out.run(p, files); err != nil {
		return err
	}
	if out.failed > 0 {
		return fmt.Errorf("predict: %d of %s could not be read", out.failed, count(len(files), "picture"))
	}
	return nil
}

// count is "1 picture", "2 pictures".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return comma(int64(n)) + " " + what
}

// preparer does to pictures what evaluation does to those of the spec's data,
// but for another fit if there is one.
func preparer(m *runtime.Model, fit string) (*data.Preparer, error) {
	if fit == "" {
		fit = m.Data.Fit
	}
	p, err := data.NewPreparer(data.Config{Name: m.Data.Name, Image: m.Image, Fit: fit}, m.Data.Mean, m.Data.Std)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.SpecFile, err)
	}
	return p, nil
}

// pictures are the files that arguments name: themselves, or the JPEG and PNG
// files in a directory and those below it, sorted. Hidden ones are left out.
func pictures(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		if arg == standardInput {
			if slices.Contains(files, arg) {
				return nil, usagef("predict: - stands for standard input only once")
			}
			files = append(files, arg)
			continue
		}
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			return nil, err
		case !info.IsDir():
			files = append(files, arg)
			continue
		}
		below, err := picturesIn(arg)
		if err != nil {
			return nil, err
		}
		files = append(files, below...)
	}
	return files, nil
}

func picturesIn(dir string) ([]string, error) {
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		switch hidden := path != "." && strings.HasPrefix(d.Name(), "."); {
		case err != nil:
			return fmt.Errorf("%s: %w", dir, err)
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden || d.IsDir():
			return nil
		}
		if data.IsPictureName(path) {
			files = append(files, filepath.Join(dir, filepath.FromSlash(path)))
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: there is no .jpg, .jpeg or .png file in it", dir)
	}
	return files, err
}

// prepared is up to a batch of pictures, ready for the model.
type prepared struct {
	files  []string
	errs   []error   // of each file; nil: it is among the images
	images []float32 // of the good ones, one after the other
}

// predictions are what the command prints.
type predictions struct {
	*app
	session *runtime.Session
	top     int
	width   int // of the column of file names
	failed  int
	show    func(file string, top []runtime.Prediction, err error) error
}

// run classifies the files and shows them in order. While the model is at one
// batch, the next is decoded.
func (p *predictions) run(from *data.Preparer, files []string) error {
	batches := make(chan *prepared)
	done := make(chan struct{})
	defer close(done)
	go func() {
		defer close(batches)
		for part := range slices.Chunk(files, p.model.Batch) {
			select {
			case batches <- p.prepare(from, part):
			case <-done:
				return
			}
		}
	}()
	shown := 0
	for b := range batches {
		if p.ctx.Err() != nil {
			return fmt.Errorf("predict: interrupted after %d of %s", shown, count(len(files), "picture"))
		}
		if err := p.batch(b); err != nil {
			return err
		}
		shown += len(b.files)
	}
	return nil
}

// prepare decodes files side by side.
func (p *predictions) prepare(from *data.Preparer, files []string) *prepared {
	n := p.model.ImageElems()
	b := &prepared{files: files, errs: make([]error, len(files)), images: make([]float32, len(files)*n)}
	var group sync.WaitGroup
	next := make(chan int)
	for range min(goruntime.GOMAXPROCS(0), len(files)) {
		group.Go(func() {
			for i := range next {
				dst := b.images[i*n:][:n]
				if files[i] == standardInput {
					b.errs[i] = from.Decode(p.in, dst)
				} else {
					b.errs[i] = from.File(files[i], dst)
				}
			}
		})
	}
	for i := range files {
		next <- i
	}
	close(next)
	group.Wait()
	good := 0
	for i, err := range b.errs {
		if err == nil {
			copy(b.images[good*n:], b.images[i*n:][:n])
			good++
		}
	}
	b.images = b.images[:good*n]
	return b
}

func (p *predictions) batch(b *prepared) (err error) {
	var all [][]runtime.Prediction
	if len(b.images) > 0 {
		if all, err = p.session.PredictTop(b.images, p.top); err != nil {
			return err
		}
	}
	for i, file := range b.files {
		var top []runtime.Prediction
		if b.errs[i] != nil {
			p.failed++
		} else {
			top, all = all[0], all[1:]
		}
		if err := p.show(file, top, b.errs[i]); err != nil {
			return err
		}
	}
	return nil
}

// line shows a picture as a line for each class.
func (p *predictions) line(file string, top []runtime.Prediction, err error) error {
	name := printable(file)
	pad := strings.Repeat(" ", max(0, p.width-utf8.RuneCountInString(name)))
	if err != nil {
		_, err = fmt.Fprintf(p.out, "%s%s  unreadable: %s\n", name, pad, reason(file, err))
		return err
	}
	for i, c := range top {
		if i == 1 {
			name, pad = "", strings.Repeat(" ", p.width)
		}
		if _, err := fmt.Fprintf(p.out, "%s%s  %6.2f %%  %s\n", name, pad, 100*c.Probability, printable(p.session.ClassName(c.Class))); err != nil {
			return err
		}
	}
	return nil
}

// object shows a picture as a JSON object on one line.
func (p *predictions) object(file string, top []runtime.Prediction, err error) error {
	type class struct {
		Class       int     `json:"class"`
		Name        string  `json:"name"`
		Probability float64 `json:"probability"`
	}
	picture := struct {
		File  string  `json:"file"`
		Top   []class `json:"top,omitempty"`
		Error string  `json:"error,omitempty"`
	}{File: file}
	if err != nil {
		picture.Error = reason(file, err)
	}
	for _, c := range top {
		picture.Top = append(picture.Top, class{c.Class, p.session.ClassName(c.Class), c.Probability})
	}
	return json.NewEncoder(p.out).Encode(picture)
}

// reason is an error without the name of its file.
func reason(file string, err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), file+": ")
}

// printable is a name as it is, or quoted if a terminal would not print it so.
func printable(name string) string {
	if quoted := strconv.Quote(name); len(quoted) != len(name)+2 {
		return quoted
	}
	return name
}

// widthOf is the width of a column of names, in characters.
func widthOf(names []string) int {
	const most = 60 // longer ones stick out
	w := 0
	for _, n := range names {
		w = max(w, utf8.RuneCountInString(printable(n)))
	}
	return min(w, most)
}
