package trainer

import (
	"errors"
	"fmt"
	"image"
	"math"
	"path/filepath"
	"time"

	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/report"
)

// run trains until the last update, an early stop or an interrupt, and reports.
func (t *training) run() error {
	if t.init != nil { // what it started from may not be there when replay asks for it
		if err := t.save(); err != nil {
			return err
		}
	}
	t.begun, t.begunAt = time.Now(), t.updates
	interrupted := false
	for t.validated < t.total && !t.stopped() {
		if err := t.trainEpoch(); err != nil {
			t.progress.clear()
			return err
		}
		err := t.endEpoch()
		if interrupted = err != nil && errors.Is(err, t.ctx.Err()); interrupted {
			break
		}
		if err != nil {
			return err
		}
	}
	if interrupted && t.saved != t.updates {
		if err := t.save(); err != nil {
			return err
		}
	}
	if err := t.history.Curves(t.model.Name); err != nil {
		return err
	}
	t.report(interrupted)
	return nil
}

// trainEpoch goes through the training samples, from where the epoch stands.
func (t *training) trainEpoch() error {
	left := min(t.plan.PerEpoch-t.updates%t.plan.PerEpoch, t.total-t.updates)
	t.progress.start(fmt.Sprintf("epoch %d/%d", t.epoch+1, t.plan.Epochs), left)
	t.mark = time.Now()
	defer t.tick()
	return t.steps()
}

// account adds a micro-batch to the meters.
func (t *training) account(sum float64, correct, n int) {
	t.epochSums.add(sum, correct, n)
	t.interval.add(sum, correct, n)
}

// afterUpdate shows progress and ends an interval.
func (t *training) afterUpdate(float64) error {
	loss, _ := t.interval.result()
	k := t.updates
	// Counted from the epoch's start, as the meter begins anew there: no interval
	// is of the one update that an epoch's end left over.
	ends := k%t.plan.PerEpoch%t.plan.Every == 0 || k == t.total
	t.showUpdate(loss, ends)
	if !ends {
		return nil
	}
	t.tick()
	err := t.record(t.line(report.Interval, &t.interval))
	t.interval = meter{d2l: t.d2l}
	return t.stranded(err)
}

// showUpdate is what people see of an update that may end an interval.
func (t *training) showUpdate(loss float64, ends bool) {
	rate := fmt.Sprintf("%s samples/s", comma(int64(float64(t.interval.samples)/max((t.interval.busy+time.Since(t.mark)).Seconds(), 1e-9))))
	if t.progress.terminal {
		t.progress.step(loss, rate, t.outlook())
		return
	}
	if t.updates%t.plan.PerEpoch == 0 || t.updates == t.total { // the epoch's line follows
		return
	}
	every := lineAtLeast
	if ends {
		every = lineEvery
	}
	t.progress.lineAfter(every, t.out, fmt.Sprintf("update %d/%d  train loss %.4f  %s  %s", t.updates, t.total, loss, rate, t.outlook()))
}

// line is a line of metrics.jsonl about what a meter has measured.
func (t *training) line(kind string, m *meter) report.Record {
	loss, _ := m.result()
	return report.Record{Kind: kind, Step: t.updates, Epoch: t.epochsMade(), LR: t.lr, TrainLoss: loss,
		SamplesPerSec: m.speed(), DataWait: m.wait(), Skipped: t.skipped}
}

// tick adds the time since the last tick to the time spent training.
func (t *training) tick() {
	now := time.Now()
	spent := now.Sub(t.mark)
	waited := t.sets.train.Waited() - t.waited
	t.waited += waited
	for _, m := range []*meter{&t.epochSums, &t.interval} {
		m.busy += spent
		m.waited += waited
	}
	t.trained += spent
	t.mark = now
}

func (t *training) epochsMade() float64 { return float64(t.updates) / float64(t.plan.PerEpoch) }

// atBoundary says whether an update is one to stop after: to save, or because
// of an interrupt.
func (t *training) atBoundary(update int) bool {
	return t.ctx.Err() != nil || t.plan.SaveEvery > 0 && update%t.plan.SaveEvery == 0
}

// saveBoundary saves within an epoch. At its end validation comes first.
func (t *training) saveBoundary() (end bool, err error) {
	if t.ctx.Err() != nil || t.updates == t.total {
		return true, nil
	}
	if t.endsEpoch() {
		return false, nil
	}
	t.tick()
	err = t.save()
	t.mark = time.Now()
	return false, err
}

// endEpoch validates, saves and reports an epoch. Where there is an interrupt
// instead, the error is the context's.
func (t *training) endEpoch() error {
	t.progress.clear()
	if err := t.ctx.Err(); err != nil {
		return err
	}
	t.boardProgress("validating")
	e, err := t.validate()
	if err != nil {
		return err
	}
	valLoss, valAcc := e.score(t.d2l).loss, e.score(t.d2l).accuracy
	trainLoss, _ := t.epochSums.result()
	fmt.Fprintf(t.out, "epoch %*.4g/%d  train loss %.4f  val loss %.4f  val acc %6.2f %%  %.0f samples/s\n",
		len(fmt.Sprint(t.plan.Epochs)), t.epochsMade(), t.plan.Epochs, trainLoss, valLoss, 100*valAcc, t.epochSums.speed())
	if math.IsNaN(valLoss) || math.IsInf(valLoss, 0) {
		return fmt.Errorf("after update %d the validation loss is %v: lower train.optimizer's lr, warm it up, or set train.clip_norm", t.updates, valLoss)
	}
	t.boardPredictions(e)
	line := t.line(report.Epoch, &t.epochSums)
	line.ValLoss, line.ValAcc = &valLoss, &valAcc
	err = t.record(line)
	if err != nil {
		return t.stranded(err)
	}
	if err := t.showMistakes(e); err != nil {
		return t.stranded(err)
	}
	better := t.judge(checkpoint.Score{Updates: t.updates, Epoch: t.epochsMade(), Loss: valLoss, Accuracy: valAcc})
	if t.endsEpoch() {
		t.epoch, t.batch = t.epoch+1, 0
		t.epochSums = meter{d2l: t.d2l}
	}
	if n := t.plan.SaveEvery; n == 0 || t.updates%n == 0 || better || t.updates == t.total || t.stopped() {
		if err := t.save(); err != nil {
			return err
		}
	}
	return t.stranded(t.history.Refresh(t.model.Name))
}

// showMistakes gives TensorBoard pictures of what was misclassified.
func (t *training) showMistakes(e *evaluation) error {
	sheet := report.Tiles(e.tiles(t.sets))
	if sheet == nil {
		return nil
	}
	return t.history.AddImages(t.updates, "val/misclassified", []image.Image{sheet})
}

// validate evaluates the parameters, or their average if the model keeps one.
func (t *training) validate() (*evaluation, error) {
	if !t.session.Average() {
		return t.evaluateAloud(t.session, t.sets)
	}
	if err := t.session.SwapAverage(); err != nil {
		return nil, err
	}
	e, err := t.evaluateAloud(t.session, t.sets)
	return e, errors.Join(err, t.session.SwapAverage())
}

// report says how it ended and where everything is.
func (t *training) report(interrupted bool) {
	at := func(name string) string { return filepath.Join(t.dir, name) }
	switch {
	case interrupted:
		fmt.Fprintf(t.out, "interrupted after update %d of %d, which is saved; go on with\n    %s\n", t.updates, t.total, t.resumeCommand())
	case t.stopped() && t.updates < t.total:
		fmt.Fprintf(t.out, "stopped early: the last %d validations were no better\n", t.early.Bad)
	}
	if t.skipped > 0 {
		fmt.Fprintf(t.out, "skipped  %s of %s updates, whose losses were outliers\n", comma(int64(t.skipped)), comma(int64(t.updates)))
	}
	if n := t.sets.skipped(); n > 0 {
		fmt.Fprintf(t.out, "left out %s samples that cannot be read\n", comma(int64(n)))
	}
	fmt.Fprintf(t.out, "curves   %s, %s\n", at("curves.png"), at("curves.svg"))
	weights := at(checkpoint.LastLink)
	if t.best != nil {
		weights += ", " + at(checkpoint.BestLink)
	}
	fmt.Fprintf(t.out, "weights  %s\nmetrics  %s\n", weights, at("metrics.jsonl"))
	if t.best != nil {
		fmt.Fprintf(t.out, "final validation accuracy %.2f %% (best %.2f %%, epoch %.4g)\n", 100*t.last.Accuracy, 100*t.best.Accuracy, t.best.Epoch)
	}
}
