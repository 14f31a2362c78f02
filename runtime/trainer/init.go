package trainer

import (
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/transfer"
)

// initFlags choose the weights that training starts from.
type initFlags struct {
	path    string
	options transfer.Options
}

func (f *initFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&f.path, "init", "", "safetensors `file` to start from, a run's directory (its best), or a checkpoint's")
	fs.Func("map", "with --init: rename tensors, `OLD=NEW`, every match of the regular expression OLD ($1 in NEW is its first group; "+
		"a name that becomes empty is left out), or @FILE with such lines; may be repeated", func(v string) error {
		if path, ok := strings.CutPrefix(v, "@"); ok {
			rules, err := transfer.ReadRenames(path)
			f.options.Rename = append(f.options.Rename, rules...)
			return err
		}
		rule, err := transfer.ParseRename(v)
		f.options.Rename = append(f.options.Rename, rule)
		return err
	})
	fs.BoolVar(&f.options.ResetHead, "reset-head", false, "with --init: start the last layer anew, as for other classes")
	fs.BoolVar(&f.options.Partial, "partial", false, "with --init: what the file lacks keeps its initial values, what the model lacks is not used")
	fs.Func("init-grid", "with --init: `ROWSxCOLUMNS` of patches that the file's position embeddings are for; if not given, what the file says, or a square", func(v string) error {
		var end string
		g := &f.options.Grid
		if n, _ := fmt.Sscanf(v+" .", "%dx%d %s", &g[0], &g[1], &end); n != 3 || end != "." || g[0] < 1 || g[1] < 1 {
			return fmt.Errorf("not ROWSxCOLUMNS, such as 14x14")
		}
		return nil
	})
}

// settle looks for flags that say nothing without --init.
func (f *initFlags) settle(fs *flag.FlagSet) (err error) {
	fs.Visit(func(set *flag.Flag) {
		switch set.Name {
		case "map", "reset-head", "partial", "init-grid":
			if f.path == "" {
				err = usagef("%s: --%s needs --init FILE", fs.Name(), set.Name)
			}
		}
	})
	return err
}

// apply puts the weights into a session that was just opened, to be trained on
// classes of these names, and says what became of every tensor; nil without
// --init.
func (f *initFlags) apply(a *app, s *runtime.Session, classes []string) (*transfer.Report, error) {
	if f.path == "" {
		return nil, nil
	}
	file, err := weightsIn(f.path)
	if err != nil {
		return nil, err
	}
	report, err := transfer.Init(s, file, f.options)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.out, "init %v", report)
	if theirs := s.Classes(); theirs != nil && !slices.Equal(theirs, classes) {
		fmt.Fprintf(a.err, "%s: the classes of %s are %s, those of the data %s; --reset-head starts the last layer anew\n",
			a.prog, file, few(theirs), few(classes))
	}
	return report, nil
}

// few is the first of some names.
func few(names []string) string {
	const most = 5
	text := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		text += fmt.Sprintf(", … (%d)", len(names))
	}
	return text
}
