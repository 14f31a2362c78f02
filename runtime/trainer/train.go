package trainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/report"
	"github.com/vitgen/vitgen/runtime/transfer"
)

// trainFlags are the command's flags besides placement and source.
type trainFlags struct {
	epochs, steps, every int
	out                  string
	init                 initFlags
	stream               bool
}

// train is the command.
func (a *app) train(args []string) error {
	fs := a.flags("train")
	var where placement
	var from source
	var o trainFlags
	where.define(fs)
	where.defineSeed(fs)
	from.define(fs)
	fs.IntVar(&o.epochs, "epochs", 0, "`number` of epochs; 0: the spec's")
	fs.IntVar(&o.steps, "steps", 0, "stop after this `number` of updates, whatever the epochs")
	fs.IntVar(&o.every, "every", 0, "`number` of updates between lines of metrics.jsonl; 0: half an epoch")
	fs.StringVar(&o.out, "out", "", "`directory` for weights, metrics and curves; empty: a new one under runs")
	o.init.define(fs)
	fs.BoolVar(&o.stream, "stream", false, "send each batch from the host, even to a device that could keep the data set")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	if err := from.settle(a.model); err != nil {
		return err
	}
	if err := o.init.settle(fs); err != nil {
		return err
	}
	if o.epochs < 0 || o.steps < 0 || o.every < 0 {
		return usagef("train: --epochs, --steps and --every cannot be negative")
	}
	// Everything that can be wrong is looked at before the first file is made.
	seed := where.seed
	if seed == 0 {
		seed = a.model.Train.Seed
	}
	sets, err := from.load(a.model, seed)
	if err != nil {
		return err
	}
	s, err := a.open(where)
	if err != nil {
		return err
	}
	defer s.Close()
	init, err := o.init.apply(a, s, sets.Train.Classes())
	if err != nil {
		return err
	}
	if err := s.SetClasses(sets.Train.Classes()); err != nil {
		return err
	}
	t := &training{app: a, session: s, sets: sets, init: init, d2l: from.metrics == "d2l"}
	if err := t.plan(o); err != nil {
		return err
	}
	if !o.stream {
		if err := sets.upload(a, s); err != nil {
			return err
		}
	}
	if err := t.start(o, from.metrics); err != nil {
		return err
	}
	defer t.history.Close()
	return t.run()
}

// training is one run of the train command.
type training struct {
	*app
	session  *runtime.Session
	sets     *loaders
	init     *transfer.Report // nil: training starts from the initializers
	d2l      bool
	dir      string
	history  *report.History
	progress progress

	epochs, perEpoch, total, every int // in updates, but for epochs

	updates         int              // whose losses are known
	before          runtime.Snapshot // the epoch, to look for the cause of a NaN
	epoch, interval meter
	lr              float64
	mark            time.Time // up to which the meters' busy counts
	bestAcc         float64   // -1: no validation yet
	bestLoss        float64
	bestEpoch       float64
	lastAcc         float64
}

// plan works out epochs and updates, and that the schedule can serve them.
func (t *training) plan(o trainFlags) error {
	m := t.model
	t.epochs = m.Train.Epochs
	if o.epochs > 0 {
		t.epochs = o.epochs
	}
	effective := m.Batch * m.Train.Accumulate
	t.perEpoch = (t.sets.Train.Len() + effective - 1) / effective
	t.total = t.epochs * t.perEpoch
	if o.steps > 0 {
		t.total = o.steps
		t.epochs = (o.steps + t.perEpoch - 1) / t.perEpoch
	}
	if t.total == 0 {
		return usagef("train: %s has no train.epochs; give --epochs or --steps", m.SpecFile)
	}
	t.every = max(1, (t.perEpoch+1)/2)
	if o.every > 0 {
		t.every = o.every
	}
	t.session.SetSteps(t.perEpoch, t.total)
	_, err := t.session.LR()
	return err
}

// start makes the run's directory with its run.json and says what will happen.
func (t *training) start(o trainFlags, metrics string) (err error) {
	if t.dir = o.out; t.dir == "" {
		if t.dir, err = newRunDir("runs", t.model.Name); err != nil {
			return err
		}
	} else if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	if err := t.writeRun(o, metrics); err != nil {
		return err
	}
	if t.history, err = report.Open(t.dir); err != nil {
		return err
	}
	m := t.model
	batch := fmt.Sprint(m.Batch)
	if m.Train.Accumulate > 1 {
		batch = fmt.Sprintf("%d × %d", m.Batch, m.Train.Accumulate)
	}
	fmt.Fprintln(t.out, t.banner(t.session))
	fmt.Fprintf(t.out, "%s: %s training and %s validation samples; %s updates, %s an epoch, batch %s\n",
		t.sets.Name, comma(int64(t.sets.Train.Len())), comma(int64(t.sets.Val.Len())),
		comma(int64(t.total)), comma(int64(t.perEpoch)), batch)
	t.bestAcc = -1
	t.progress = newProgress(t.err)
	return nil
}

// writeRun writes run.json: what this run trains, and with what.
func (t *training) writeRun(o trainFlags, metrics string) error {
	type object = map[string]any
	m := t.model
	opt, sch := m.Train.Optimizer, m.Train.Schedule
	text, err := json.MarshalIndent(object{
		"model": m.Name, "spec": m.SpecFile, "spec_hash": m.SpecHash, "vitgen": m.Generator,
		"device": t.session.Device(), "precision": t.session.Precision(), "seed": t.session.Seed(),
		"data": t.sets.Name, "metrics": metrics, "init": t.init,
		"epochs": t.epochs, "updates": t.total, "batch": m.Batch, "accumulate": m.Train.Accumulate,
		"clip_norm": m.Train.ClipNorm,
		"optimizer": object{
			"kind": opt.Kind, "lr": opt.LR, "momentum": opt.Momentum, "nesterov": opt.Nesterov,
			"beta1": opt.Beta1, "beta2": opt.Beta2, "eps": opt.Eps, "weight_decay": opt.WeightDecay,
		},
		"schedule": object{
			"kind": sch.Kind, "warmup_steps": sch.WarmupSteps, "steps": sch.TotalSteps, "final_lr": sch.FinalLR,
			"every": sch.Every, "every_unit": sch.EveryUnit, "gamma": sch.Gamma,
		},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("run.json: %w", err)
	}
	return renameio.WriteFile(filepath.Join(t.dir, "run.json"), append(text, '\n'), 0o644)
}

// newRunDir makes runs/name, or runs/name-2, … if that is there already.
func newRunDir(parent, name string) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	for i := 1; ; i++ {
		dir := filepath.Join(parent, name)
		if i > 1 {
			dir = fmt.Sprintf("%s-%d", dir, i)
		}
		if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
}

// run trains until the last update or an interrupt, and reports.
func (t *training) run() error {
	for epoch := 0; t.session.Updates() < t.total && t.ctx.Err() == nil; epoch++ {
		if err := t.trainEpoch(epoch); err != nil {
			t.progress.clear()
			return err
		}
		if t.ctx.Err() != nil {
			break
		}
		if err := t.endEpoch(); err != nil {
			return err
		}
	}
	interrupted := t.ctx.Err() != nil && t.session.Updates() < t.total
	if interrupted {
		t.progress.clear()
		if err := t.record(report.Interval, &t.interval); err != nil {
			return err
		}
		if err := t.save("last"); err != nil {
			return err
		}
	}
	if err := t.history.Curves(t.model.Name); err != nil {
		return err
	}
	t.report(interrupted)
	return nil
}

// afterUpdate shows progress and ends an interval.
func (t *training) afterUpdate() error {
	loss, _ := t.interval.result()
	t.progress.step(loss)
	k := t.updates
	if k%t.every != 0 && k%t.perEpoch != 0 && k != t.total {
		return nil
	}
	t.tick()
	if k%t.perEpoch != 0 && k != t.total { // else the epoch's line follows
		t.progress.slowLine(t.out, fmt.Sprintf("update %d/%d  train loss %.4f  %.0f samples/s", k, t.total, loss, t.interval.speed()))
	}
	err := t.record(report.Interval, &t.interval)
	t.interval = meter{d2l: t.d2l}
	return err
}

// tick adds the time since the last tick to the time spent training.
func (t *training) tick() {
	now := time.Now()
	t.epoch.busy += now.Sub(t.mark)
	t.interval.busy += now.Sub(t.mark)
	t.mark = now
}

func (t *training) epochsMade() float64 { return float64(t.updates) / float64(t.perEpoch) }

// record adds a line without validation to the metrics. An empty meter has
// nothing to say.
func (t *training) record(kind string, m *meter) error {
	if m.batches == 0 {
		return nil
	}
	loss, _ := m.result()
	return t.history.Add(report.Record{Kind: kind, Step: t.updates, Epoch: t.epochsMade(), LR: t.lr, TrainLoss: loss, SamplesPerSec: m.speed()})
}

// endEpoch validates, saves and reports an epoch.
func (t *training) endEpoch() error {
	t.progress.clear()
	e, err := evaluate(t.session, t.sets)
	if err != nil {
		return err
	}
	valLoss, valAcc := e.score(t.d2l).loss, e.score(t.d2l).accuracy
	trainLoss, _ := t.epoch.result()
	fmt.Fprintf(t.out, "epoch %*.4g/%d  train loss %.4f  val loss %.4f  val acc %6.2f %%  %.0f samples/s\n",
		len(fmt.Sprint(t.epochs)), t.epochsMade(), t.epochs, trainLoss, valLoss, 100*valAcc, t.epoch.speed())
	if math.IsNaN(valLoss) || math.IsInf(valLoss, 0) {
		return fmt.Errorf("after update %d the validation loss is %v: lower train.optimizer's lr, warm it up, or set train.clip_norm", t.session.Updates(), valLoss)
	}
	err = t.history.Add(report.Record{Kind: report.Epoch, Step: t.session.Updates(), Epoch: t.epochsMade(), LR: t.lr, TrainLoss: trainLoss,
		ValLoss: &valLoss, ValAcc: &valAcc, SamplesPerSec: t.epoch.speed()})
	if err != nil {
		return err
	}
	t.lastAcc = valAcc
	if err := t.save("last"); err != nil {
		return err
	}
	if valAcc > t.bestAcc || valAcc == t.bestAcc && valLoss < t.bestLoss {
		t.bestAcc, t.bestLoss, t.bestEpoch = valAcc, valLoss, t.epochsMade()
		if err := t.save("best"); err != nil {
			return err
		}
	}
	return t.history.Curves(t.model.Name)
}

func (t *training) save(name string) error {
	return t.session.Save(filepath.Join(t.dir, name+".safetensors"))
}

// report says how it ended and where everything is.
func (t *training) report(interrupted bool) {
	if interrupted {
		fmt.Fprintf(t.out, "interrupted after update %d of %d\n", t.session.Updates(), t.total)
	}
	at := func(name string) string { return filepath.Join(t.dir, name) }
	fmt.Fprintf(t.out, "curves   %s, %s\n", at("curves.png"), at("curves.svg"))
	weights := at("last.safetensors")
	if t.bestAcc >= 0 {
		weights += ", " + at("best.safetensors")
	}
	fmt.Fprintf(t.out, "weights  %s\nmetrics  %s\n", weights, at("metrics.jsonl"))
	if t.bestAcc >= 0 {
		fmt.Fprintf(t.out, "final validation accuracy %.2f %% (best %.2f %%, epoch %.4g)\n", 100*t.lastAcc, 100*t.bestAcc, t.bestEpoch)
	}
}
