package spec

import (
	"fmt"
	"math"
	"regexp"

	"gopkg.in/yaml.v3"
)

// document is what the top map of a file fills.
type document struct {
	Spec
	keys
	constants scope
	init      *initDefaults // the decoder's own: layers read it
	model     *yaml.Node
}

// languageVersion is the only one so far.
const languageVersion = 1

// rootFields in the order of the canonical form; what comes later may depend on
// what comes first.
var rootFields = []*field{
	{key: "vitgen", typ: intType{languageVersion, languageVersion}, req: true, dst: to(func(r *document) *int { return &r.Version }), doc: "version of the language"},
	{key: "name", typ: packageName, req: true, dst: to(func(r *document) *string { return &r.Name }), doc: "Go package name of the generated code"},
	{key: "define", typ: constantsType{}, alias: true, dst: to(func(r *document) *scope { return &r.constants }), doc: "constants for `${…}`", def: "none"},
	{key: "input", typ: groupType{rows: inputFields}, req: true, dst: to(func(r *document) *Input { return &r.Input }), doc: "what the model is fed"},
	{key: "init", typ: groupType{rows: initFields}, alias: true, dst: to(func(r *document) *initDefaults { return r.init }), doc: "initializers of linear, patch_embed and attention where they give none", def: "`pytorch`"},
	{key: "model", typ: layersType{}, req: true, dst: to(func(r *document) **yaml.Node { return &r.model }), doc: "the layers, in order"},
	{key: "loss", typ: choiceType[Loss]{union: lossUnion, word: func(l *Loss) string { return l.Kind }, place: func(l *Loss, at span) { l.Pos = at.Pos }}, dst: to(func(r *document) *Loss { return &r.Loss }), doc: "the training criterion"},
	{key: "train", typ: groupType{rows: trainFields}, req: true, dst: to(func(r *document) *Train { return &r.Train }), doc: "how to train"},
	{key: "data", typ: choiceType[Data]{union: dataUnion, word: func(x *Data) string { return x.Name }, place: func(x *Data, at span) { x.Pos = at.Pos }}, req: true, dst: to(func(r *document) *Data { return &r.Data }), doc: "the data set"},
}

// newDocument has the defaults of the sections.
func newDocument(d *decoder) *document {
	d.init = initDefaults{Init{Kind: "pytorch"}, Init{Kind: "pytorch"}}
	return &document{
		Spec: Spec{
			Loss: Loss{Kind: "cross_entropy"},
			Train: Train{Accumulate: 1, Precision: "fp32", Metrics: "exact", Best: defaultBest, Seed: 1,
				Schedule: Schedule{Kind: "constant"}},
		},
		init: &d.init,
	}
}

var packageName = textType{
	pattern: regexp.MustCompile(`^[a-z][a-z0-9_]*$`),
	want:    "a Go package name: a lower-case letter, then lower-case letters, digits and _",
	doc:     "Go package name",
	extra:   badPackageName,
}

var inputFields = []*field{
	{key: "image", typ: listType{3, intType{1, 1 << 16}}, req: true, doc: "channels, height and width",
		dst: to(func(in *Input) []*int { return []*int{&in.Channels, &in.Height, &in.Width} })},
	{key: "classes", typ: intType{2, maxDim}, req: true, dst: to(func(in *Input) *int { return &in.Classes }), doc: "number of classes; labels count from 0"},
}

var initFields = []*field{
	{key: "weight", typ: anyInit, dst: to(func(i *initDefaults) *Init { return &i.weight }), doc: "of weights"},
	{key: "bias", typ: anyInit, dst: to(func(i *initDefaults) *Init { return &i.bias }), doc: "of biases"},
}

var lossUnion = &union{name: "a loss", rows: []*variant{{
	word: "cross_entropy", doc: "mean cross-entropy of the softmax of the logits",
	make: func(initDefaults) any { return &Loss{Kind: "cross_entropy"} },
	fields: []*field{
		{key: "label_smoothing", typ: fraction, dst: to(func(l *Loss) *float64 { return &l.LabelSmoothing }), doc: "how much of the label goes evenly to all classes"},
	},
}}}

var trainFields = []*field{
	{key: "batch", typ: intType{1, 1 << 20}, req: true, dst: to(func(t *Train) *int { return &t.Batch }), doc: "samples per micro-batch; the last one of an epoch may be smaller"},
	{key: "epochs", typ: intType{1, 1 << 20}, req: true, dst: to(func(t *Train) *int { return &t.Epochs }), doc: "passes over the training set"},
	{key: "accumulate", typ: intType{1, 1 << 16}, dst: to(func(t *Train) *int { return &t.Accumulate }), doc: "micro-batches whose gradients make one update"},
	{key: "precision", typ: enumType{"fp32", "tf32", "bf16"}, dst: to(func(t *Train) *string { return &t.Precision }), doc: "of the matrix products; parameters, sums and statistics stay fp32. With bf16 a CUDA device also stores activations as bf16, except the residual stream. The CPU computes everything in fp32"},
	{key: "metrics", typ: enumType{"exact", "d2l"}, dst: to(func(t *Train) *string { return &t.Metrics }), doc: "validation metrics: mean over samples, or d2l's unweighted mean over batch means"},
	{key: "optimizer", typ: choiceType[Optimizer]{union: optimizerUnion, word: func(o *Optimizer) string { return o.Kind }, place: func(o *Optimizer, at span) { o.Pos = at.Pos }}, req: true, dst: to(func(t *Train) *Optimizer { return &t.Optimizer }), doc: "the update rule"},
	{key: "schedule", typ: choiceType[Schedule]{union: scheduleUnion, word: func(s *Schedule) string { return s.Kind }, place: func(s *Schedule, at span) { s.Pos = at.Pos }}, dst: to(func(t *Train) *Schedule { return &t.Schedule }), doc: "the learning rate over the updates"},
	{key: "clip_norm", typ: notNegative, dst: to(func(t *Train) *float64 { return &t.ClipNorm }), doc: "largest norm of all gradients together; 0 is off"},
	{key: "ema", typ: emaType, dst: to(func(t *Train) *EMA { return &t.EMA }), doc: "keep a moving average of the parameters; it is what validation measures and `best` and `last` hold", def: "off",
		unset: when(func(t *Train) bool { return t.EMA.Decay == 0 })},
	{key: "early_stop", typ: earlyStopType, dst: to(func(t *Train) *EarlyStop { return &t.EarlyStop }), doc: "end training when validation has stopped getting better", def: "off",
		unset: when(func(t *Train) bool { return t.EarlyStop.Patience == 0 })},
	{key: "best", typ: enumType{"accuracy", "loss"}, dst: to(func(t *Train) *string { return &t.Best }), doc: "the validation metric that the best weights are best by, and `early_stop` watches",
		unset: when(func(t *Train) bool { return t.Best == defaultBest })},
	{key: "skip_outliers", typ: skipOutliersType, dst: to(func(t *Train) *SkipOutliers { return &t.SkipOutliers }), doc: "leave out the update of a step whose loss is far above those before it", def: "off",
		unset: when(func(t *Train) bool { return t.SkipOutliers.Z == 0 })},
	{key: "seed", typ: intType{0, math.MaxInt64}, dst: to(func(t *Train) *uint64 { return &t.Seed }), doc: "of initial values, shuffling, dropout and synthetic data"},
}

// defaultBest is not written in the canonical form: the key is younger than
// specs whose hashes are recorded.
const defaultBest = "accuracy"

// Options of training that are off unless given.
var (
	emaType          = optionType{groupType: groupType{rows: emaFields}, short: "decay"}
	earlyStopType    = optionType{groupType: groupType{rows: earlyStopFields}, short: "patience"}
	skipOutliersType = optionType{groupType: groupType{rows: skipOutliersFields}, short: "z",
		defaults: func(obj any) { obj.(*SkipOutliers).Window = 128 }}
)

var emaFields = []*field{
	{key: "decay", typ: floatType{lo: 0, noLo: true, hi: 1, noHi: true, text: "above 0 and below 1"}, req: true, dst: to(func(e *EMA) *float64 { return &e.Decay }), doc: "how much of the average each update keeps"},
	{key: "warmup", typ: flag, dst: to(func(e *EMA) *bool { return &e.Warmup }), doc: "keep less in the first updates k: min(decay, (1+k)/(10+k))"},
}

var earlyStopFields = []*field{
	{key: "patience", typ: intType{1, 1 << 20}, req: true, dst: to(func(e *EarlyStop) *int { return &e.Patience }), doc: "validations in a row that may bring nothing better"},
	{key: "min_delta", typ: notNegative, dst: to(func(e *EarlyStop) *float64 { return &e.MinDelta }), doc: "a validation is better if it beats the best by more than this; accuracies lie in [0, 1]"},
}

var skipOutliersFields = []*field{
	{key: "z", typ: positive, req: true, dst: to(func(o *SkipOutliers) *float64 { return &o.Z }), doc: "standard deviations above the mean from which on a loss is an outlier"},
	{key: "window", typ: intType{2, 1 << 16}, dst: to(func(o *SkipOutliers) *int { return &o.Window }), doc: "losses that mean and deviation are taken over"},
}

// checkTrain finds what no single key shows.
func (c *checker) checkTrain(t *Train) {
	if d := t.EMA.Decay; d != 0 && float32(d) == 1 {
		c.add(t.EMA.at["decay"], "0.9999 averages over some 10,000 updates",
			fmt.Sprintf("decay must be below 1 as a 32-bit float: with %s the average would never move", formatFloat(d)))
	}
	if e := t.EarlyStop; e.MinDelta >= 1 && t.Best == "accuracy" {
		c.add(e.at["min_delta"], "0.001 is a tenth of a percent", "min_delta must be below 1: no accuracy is better than another by more than that")
	}
}

// The keys both optimizers have.
var (
	lrKey    = &field{key: "lr", typ: positive, req: true, dst: to(func(o *Optimizer) *float64 { return &o.LR }), doc: "learning rate"}
	decayKey = &field{key: "weight_decay", typ: notNegative, dst: to(func(o *Optimizer) *float64 { return &o.WeightDecay }), doc: "weight decay"}
	whichKey = &field{key: "decay", typ: decayType{}, dst: to(func(o *Optimizer) *bool { return &o.DecayAll }), doc: "what weight decay acts on: every parameter, or only the weight matrices of linear, patch_embed and attention"}
	betaType = listType{2, fraction}
)

var optimizerUnion = &union{name: "an optimizer", rows: []*variant{
	{
		word: "sgd", doc: "stochastic gradient descent, as torch.optim.SGD",
		make: func(initDefaults) any { return &Optimizer{Kind: "sgd", DecayAll: true} },
		fields: []*field{
			lrKey,
			{key: "momentum", typ: fraction, dst: to(func(o *Optimizer) *float64 { return &o.Momentum }), doc: "momentum"},
			{key: "nesterov", typ: flag, dst: to(func(o *Optimizer) *bool { return &o.Nesterov }), doc: "Nesterov's form of momentum"},
			decayKey, whichKey,
		},
		finish: func(d *decoder, obj any, _ span) bool {
			o := obj.(*Optimizer)
			if o.Nesterov && o.Momentum == 0 {
				d.add(o.at["nesterov"], "give momentum as well", "nesterov needs a momentum above 0")
				return false
			}
			return true
		},
	}, {
		word: "adamw", doc: "Adam with decoupled weight decay, as torch.optim.AdamW",
		make: func(initDefaults) any {
			return &Optimizer{Kind: "adamw", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, DecayAll: true}
		},
		fields: []*field{
			lrKey,
			{key: "betas", typ: betaType, dst: to(func(o *Optimizer) []*float64 { return []*float64{&o.Beta1, &o.Beta2} }), doc: "decay of the means of the gradient and of its square"},
			{key: "eps", typ: positive, dst: to(func(o *Optimizer) *float64 { return &o.Eps }), doc: "added to the root of the second mean"},
			decayKey, whichKey,
		},
	},
}}

// decayType is the key decay: all or weights. dst: *bool, true for all.
type decayType struct{}

var decayWords = enumType{"all", "weights"}

func (decayType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	var word string
	ok := decayWords.decode(d, n, what, &word)
	*dst.(*bool) = word == "all"
	return ok
}

func (decayType) canon(dst any) string {
	if *dst.(*bool) {
		return "all"
	}
	return "weights"
}

func (decayType) schema() object   { return decayWords.schema() }
func (decayType) describe() string { return decayWords.describe() }

// stepCount is a number of updates.
var stepCount = intType{0, math.MaxInt32}

// warmupKey makes the key that every schedule but constant has.
func warmupKey(req bool) *field {
	t := stepCount
	if req {
		t.min = 1
	}
	return &field{key: "warmup_steps", typ: t, req: req, dst: to(func(s *Schedule) *int { return &s.WarmupSteps }), doc: "updates over which the rate rises from lr/warmup_steps to lr"}
}

var scheduleUnion = &union{name: "a schedule", rows: []*variant{
	{word: "constant", doc: "lr throughout", make: newSchedule("constant")},
	{
		word: "linear_warmup", doc: "rises to lr, then stays", make: newSchedule("linear_warmup"),
		fields: []*field{warmupKey(true)},
	}, {
		word: "cosine", doc: "falls from lr to final_lr along half a cosine", make: newSchedule("cosine"),
		fields: []*field{
			warmupKey(false),
			{key: "final_lr", typ: notNegative, dst: to(func(s *Schedule) *float64 { return &s.FinalLR }), doc: "the rate at the end, and after it"},
			{key: "steps", typ: intType{1, math.MaxInt32}, dst: to(func(s *Schedule) *int { return &s.TotalSteps }), doc: "the update at which it ends, warm-up included", def: "epochs × updates per epoch",
				unset: when(func(s *Schedule) bool { return s.TotalSteps == 0 })},
		},
		finish: func(d *decoder, obj any, _ span) bool {
			s := obj.(*Schedule)
			if s.TotalSteps > 0 && s.WarmupSteps >= s.TotalSteps {
				d.errorf(s.at["warmup_steps"], "warmup_steps must be below steps: %d is not below %d", s.WarmupSteps, s.TotalSteps)
				return false
			}
			return true
		},
	}, {
		word: "step", doc: "multiplied by gamma at intervals", make: newSchedule("step"),
		fields: []*field{
			warmupKey(false),
			everyKey("every_epochs", "epochs"), everyKey("every_steps", "steps"),
			{key: "gamma", typ: floatType{lo: 0, noLo: true, hi: 1, text: "above 0 and at most 1"}, req: true, dst: to(func(s *Schedule) *float64 { return &s.Gamma }), doc: "the factor"},
		},
		finish: finishStep,
	},
}}

func newSchedule(kind string) func(initDefaults) any {
	return func(initDefaults) any { return &Schedule{Kind: kind} }
}

// everyKey is one of the two ways to give the interval of a step schedule.
func everyKey(key, unit string) *field {
	return &field{key: key, typ: intType{1, math.MaxInt32}, dst: to(func(s *Schedule) *int { return &s.Every }),
		doc: "interval in " + unit + "; exactly one of the two", def: "–",
		unset: when(func(s *Schedule) bool { return s.EveryUnit != unit })}
}

func finishStep(d *decoder, obj any, at span) bool {
	s := obj.(*Schedule)
	switch epochs, steps := s.has("every_epochs"), s.has("every_steps"); {
	case epochs && steps:
		d.errorf(s.at["every_steps"], "step has either every_epochs or every_steps, not both")
		return false
	case !epochs && !steps:
		d.errorf(at, "step lacks the key every_epochs or every_steps")
		return false
	case epochs:
		s.EveryUnit = "epochs"
	default:
		s.EveryUnit = "steps"
	}
	return true
}
