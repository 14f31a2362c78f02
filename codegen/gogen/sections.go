package gogen

import (
	"fmt"
	"maps"
	"slices"

	"github.com/dave/jennifer/jen"

	"github.com/vitgen/vitgen/spec"
)

// The spec's train: and data: sections as literals of the runtime. What is off
// is not printed.

func train(s *spec.Spec) jen.Code {
	t, o, c := s.Train, s.Train.Optimizer, s.Train.Schedule
	fields := []jen.Code{
		field("Epochs", jen.Lit(t.Epochs)),
		field("Accumulate", jen.Lit(t.Accumulate)),
		field("Precision", jen.Lit(t.Precision)),
		field("Metrics", jen.Lit(t.Metrics)),
		field("Optimizer", rt("Optimizer").Values(
			field("Kind", jen.Lit(o.Kind)), field("LR", jen.Lit(o.LR)),
			field("Momentum", jen.Lit(o.Momentum)), field("Nesterov", jen.Lit(o.Nesterov)),
			field("Beta1", jen.Lit(o.Beta1)), field("Beta2", jen.Lit(o.Beta2)),
			field("Eps", jen.Lit(o.Eps)), field("WeightDecay", jen.Lit(o.WeightDecay)), jen.Line())),
		field("Schedule", rt("Schedule").Values(
			field("Kind", jen.Lit(c.Kind)), field("WarmupSteps", jen.Lit(c.WarmupSteps)),
			field("TotalSteps", jen.Lit(c.TotalSteps)), field("FinalLR", jen.Lit(c.FinalLR)),
			field("Every", jen.Lit(c.Every)), field("EveryUnit", jen.Lit(c.EveryUnit)),
			field("Gamma", jen.Lit(c.Gamma)), jen.Line())),
		field("ClipNorm", jen.Lit(t.ClipNorm)),
		field("Seed", jen.Op(fmt.Sprint(t.Seed))),
		field("Best", jen.Lit(t.Best)),
	}
	if e := t.EMA; e.Decay > 0 {
		fields = append(fields, field("EMA", rt("EMA").Values(pair("Decay", e.Decay), pair("Warmup", e.Warmup))))
	}
	if e := t.EarlyStop; e.Patience > 0 {
		fields = append(fields, field("EarlyStop", rt("EarlyStop").Values(pair("Patience", e.Patience), pair("MinDelta", e.MinDelta))))
	}
	if o := t.SkipOutliers; o.Z > 0 {
		fields = append(fields, field("SkipOutliers", rt("SkipOutliers").Values(pair("Z", o.Z), pair("Window", o.Window))))
	}
	return rt("Train").Values(append(fields, jen.Line())...)
}

// pair is one field of a literal of one line.
func pair(name string, v any) jen.Code { return jen.Id(name).Op(":").Lit(v) }

func data(d spec.Data) jen.Code {
	fields := []jen.Code{
		field("Name", jen.Lit(d.Name)),
		field("Resize", jen.Index(jen.Lit(2)).Int().Values(jen.Lit(d.Resize[0]), jen.Lit(d.Resize[1]))),
		field("Mean", floats(d.Mean)),
		field("Std", floats(d.Std)),
		field("Train", jen.Lit(d.Train)),
		field("Val", jen.Lit(d.Val)),
	}
	if d.Fit != "" {
		fields = append(fields, field("Fit", jen.Lit(d.Fit)), field("ValPart", jen.Lit(d.ValPart)))
	}
	if d.Augment.On() {
		fields = append(fields, field("Augment", augment(d.Augment)))
	}
	return rt("Data").Values(append(fields, jen.Line())...)
}

func augment(a spec.Augment) jen.Code {
	var fields []jen.Code
	if c := a.ResizedCrop; c.Scale[1] > 0 {
		two := func(name string, v [2]float64) jen.Code {
			return jen.Id(name).Op(":").Index(jen.Lit(2)).Float64().Values(jen.Lit(v[0]), jen.Lit(v[1]))
		}
		fields = append(fields, field("ResizedCrop", rt("ResizedCrop").Values(two("Scale", c.Scale), two("Ratio", c.Ratio))))
	}
	for _, f := range []struct {
		name  string
		value any
		on    bool
	}{
		{"Padding", a.Padding, a.Padding > 0}, {"Flip", a.Flip, a.Flip > 0},
		{"Mixup", a.Mixup, a.Mixup > 0}, {"CutMix", a.CutMix, a.CutMix > 0},
	} {
		if f.on {
			fields = append(fields, field(f.name, jen.Lit(f.value)))
		}
	}
	return rt("Augment").Values(append(fields, jen.Line())...)
}

// hashes prints a map in the order of its keys.
func hashes(m map[string]string) jen.Code {
	return jen.Map(jen.String()).String().ValuesFunc(func(g *jen.Group) {
		for _, target := range slices.Sorted(maps.Keys(m)) {
			g.Line().Lit(target).Op(":").Lit(m[target])
		}
		g.Line()
	})
}
