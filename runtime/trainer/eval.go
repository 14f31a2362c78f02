package trainer

import "fmt"

// eval is the command.
func (a *app) eval(args []string) error {
	fs := a.flags("eval")
	var where placement
	var from source
	where.define(fs)
	from.define(fs)
	weights := fs.String("weights", "", "safetensors `file` under PyTorch's state_dict names")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	if err := from.settle(a.model); err != nil {
		return err
	}
	if *weights == "" {
		return usagef("eval: --weights FILE is missing")
	}
	sets, err := from.load(a.model, 0)
	if err != nil {
		return err
	}
	s, err := a.open(where)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Load(*weights); err != nil {
		return err
	}
	e, err := evaluate(s, sets)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, a.banner(s))
	fmt.Fprintf(a.out, "%s: %s validation samples\n", sets.Name, comma(int64(sets.Val.Len())))
	fmt.Fprintf(a.out, "validation loss %.4f, accuracy %.2f %%\n", e.score(from.metrics == "d2l").loss, 100*e.score(from.metrics == "d2l").accuracy)
	return nil
}
