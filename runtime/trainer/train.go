package trainer

import (
	"flag"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/board"
	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/report"
	"github.com/vitgen/vitgen/runtime/transfer"
)

// trainFlags are the flags of the train command.
type trainFlags struct {
	where placement
	from  source

	epochs, steps, every     int
	saveEvery, keepEvery     int
	patience                 int // -1: the spec's
	best                     string
	out, board               string
	init                     initFlags
	stream                   bool
	resume, overwrite, force bool
	given                    map[string]bool // by name: on the command line
}

func (a *app) parseTrain(args []string) (*trainFlags, error) {
	fs := a.flags("train")
	o := &trainFlags{given: map[string]bool{}}
	o.where.define(fs)
	o.where.defineSeed(fs)
	o.from.define(fs)
	o.from.warn = a.warn
	fs.IntVar(&o.epochs, "epochs", 0, "`number` of epochs; 0: the spec's")
	fs.IntVar(&o.steps, "steps", 0, "stop after this `number` of updates, whatever the epochs")
	fs.IntVar(&o.every, "every", 0, "`number` of updates between lines of metrics.jsonl, from the start of each epoch; 0: half an epoch")
	fs.IntVar(&o.saveEvery, "save-every", 0, "`number` of updates between checkpoints; 0: one each epoch")
	fs.IntVar(&o.keepEvery, "keep-every", 0, "keep the checkpoints of multiples of this `number` of updates; 0: only the last and the best")
	fs.IntVar(&o.patience, "patience", -1, "stop after this `number` of validations in a row that were not better; 0: never; -1: the spec's")
	fs.StringVar(&o.best, "best", "", "what the best weights are best by: `accuracy` or loss; empty: the spec's")
	fs.StringVar(&o.out, "out", "", "`directory` for weights, metrics and curves; empty: a new one under runs")
	o.init.define(fs)
	fs.StringVar(&o.board, "board", "", "show the run live on a page at this `address` of this machine, as :8080; :0 is any free port")
	fs.BoolVar(&o.stream, "stream", false, "send each batch from the host, even to a device that could keep the data set")
	fs.BoolVar(&o.resume, "resume", false, "go on with the run in --out, or with the newest one under runs")
	fs.BoolVar(&o.overwrite, "overwrite", false, "start anew in --out even if it holds checkpoints, which are removed")
	fs.BoolVar(&o.force, "force", false, "with --resume: go on though spec, data or kernels are others, no longer bit for bit")
	if _, err := a.parse(fs, args, 0); err != nil {
		return nil, err
	}
	fs.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	if err := o.init.settle(fs); err != nil {
		return nil, err
	}
	if o.board != "" {
		if _, err := board.Address(o.board); err != nil {
			return nil, usagef("train: --board: %w", err)
		}
	}
	switch {
	case o.epochs < 0 || o.steps < 0 || o.every < 0 || o.saveEvery < 0 || o.keepEvery < 0:
		return nil, usagef("train: --epochs, --steps, --every, --save-every and --keep-every cannot be negative")
	case o.patience < -1:
		return nil, usagef("train: --patience is %d; want -1, 0 or a number of validations", o.patience)
	case o.best != "" && o.best != "accuracy" && o.best != "loss":
		return nil, usagef("train: --best is accuracy or loss, not %q", o.best)
	case o.resume && o.overwrite:
		return nil, usagef("train: --resume goes on with a run and --overwrite removes it; give one of them")
	case o.force && !o.resume:
		return nil, usagef("train: --force belongs to --resume")
	}
	return o, nil
}

// train is the command.
func (a *app) train(args []string) error {
	o, err := a.parseTrain(args)
	if err != nil {
		return err
	}
	t := &training{stepper: a.stepper()}
	defer t.close()
	if o.resume {
		if err := t.find(o); err != nil {
			return err
		}
	}
	if done, err := t.open(o); done || err != nil {
		return err
	}
	err = t.run()
	t.finishBoard(err)
	return err
}

// training is one run of the train command.
type training struct {
	stepper
	init     *transfer.Report // nil: training starts from the initializers
	d2l      bool
	dir      string
	files    *checkpoint.Run
	unlock   func()
	was      *checkpoint.Checkpoint // what the run goes on from; nil: it begins
	plan     checkpoint.Plan
	receipt  checkpoint.Receipt
	changes  []checkpoint.Change
	history  *report.History
	progress progress
	board    *board.Board // nil: none

	epochSums, interval meter
	mark                time.Time     // up to which the meters' busy counts
	waited              time.Duration // for data, until mark
	trained             time.Duration // in all
	begun               time.Time     // by this process
	begunAt             int           // after so many updates
	snapshot            runtime.Snapshot
	saved               int // update of the last checkpoint; -1: none yet

	validated  int // updates before the last validation; -1: none yet
	last, best *checkpoint.Score
	early      checkpoint.EarlyStop
}

// open makes everything ready: whatever can be wrong is looked at before the
// first file is made. done says that nothing is left to do.
func (t *training) open(o *trainFlags) (done bool, err error) {
	if err := o.from.settle(t.model); err != nil {
		return false, err
	}
	seed := o.where.seed
	if seed == 0 {
		seed = t.model.Train.Seed
	}
	if t.sets, err = o.from.load(t.model, seed); err != nil {
		return false, err
	}
	t.sets.ctx = t.ctx
	if t.session, err = t.app.open(o.where); err != nil {
		return false, err
	}
	if t.was == nil {
		if t.init, err = o.init.apply(t.app, t.session, t.sets.Train.Classes()); err != nil {
			return false, err
		}
	}
	if err := t.session.SetClasses(t.sets.Train.Classes()); err != nil {
		return false, err
	}
	t.receipt = t.receiptOf(t.session, t.sets)
	if t.init != nil {
		t.receipt.Init, t.receipt.InitHash = t.init.File, t.init.SHA256
	} else if t.was != nil {
		t.receipt.Init, t.receipt.InitHash = t.was.State.Receipt.Init, t.was.State.Receipt.InitHash
	}
	if err := t.makePlan(o); err != nil {
		return false, err
	}
	t.add, t.updated = t.account, t.afterUpdate
	t.holds, t.held = t.atBoundary, t.saveBoundary
	t.saved, t.validated = -1, -1
	if t.was != nil {
		if done, err := t.goOn(o); done || err != nil {
			return done, err
		}
	}
	if !o.stream {
		if err := t.sets.upload(t.app, t.session); err != nil {
			return false, err
		}
	}
	if err := t.openBoard(o.board); err != nil {
		return false, err
	}
	return false, t.start(o)
}

func (t *training) close() {
	t.board.Close()
	if t.history != nil {
		t.history.Close()
	}
	if t.session != nil {
		t.session.Close()
	}
	if t.unlock != nil {
		t.unlock()
	}
}

// makePlan works out epochs and updates, and that the schedule can serve them.
func (t *training) makePlan(o *trainFlags) error {
	m := t.model
	p := &t.plan
	*p = checkpoint.Plan{
		Epochs: m.Train.Epochs, Steps: o.steps, Every: o.every, SaveEvery: o.saveEvery, KeepEvery: o.keepEvery,
		Metrics: o.from.metrics, Best: m.Train.Best, Patience: m.Train.EarlyStop.Patience, DataDir: o.from.dir,
	}
	if o.epochs > 0 {
		p.Epochs = o.epochs
	}
	if o.best != "" {
		p.Best = o.best
	}
	if p.Best == "" {
		p.Best = "accuracy"
	}
	if o.patience >= 0 {
		p.Patience = o.patience
	}
	effective := m.Batch * m.Train.Accumulate
	p.PerEpoch = (t.sets.Train.Len() + effective - 1) / effective
	p.Total = p.Epochs * p.PerEpoch
	if o.steps > 0 {
		p.Total = o.steps
		p.Epochs = (o.steps + p.PerEpoch - 1) / p.PerEpoch
	}
	if p.Total == 0 {
		return usagef("train: %s has no train.epochs; give --epochs or --steps", m.SpecFile)
	}
	if p.Every == 0 {
		p.Every = max(1, (p.PerEpoch+1)/2)
	}
	t.total, t.d2l = p.Total, p.Metrics == "d2l"
	t.epochSums, t.interval = meter{d2l: t.d2l}, meter{d2l: t.d2l}
	t.session.SetSteps(p.PerEpoch, p.Total)
	_, err := t.session.LR()
	return err
}
