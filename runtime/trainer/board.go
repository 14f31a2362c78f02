package trainer

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/board"
	"github.com/vitgen/vitgen/runtime/report"
)

// openBoard starts the live page, if there is to be one: before the run has a
// directory, so that a port in use leaves nothing behind.
func (t *training) openBoard(addr string) (err error) {
	if addr != "" {
		t.board, err = board.Start(addr, t.boardRun())
	}
	return err
}

// showOnBoard says where the page is, and shows what the run did before.
func (t *training) showOnBoard() {
	if t.board == nil {
		return
	}
	t.board.Describe(t.boardRun())
	for _, r := range t.history.Records() {
		t.board.Publish(r)
	}
	t.boardProgress("training")
	fmt.Fprintf(t.out, "board    %s\n", t.board.URL())
}

// boardRun is what the page says of the run.
func (t *training) boardRun() board.Run {
	m := t.model
	return board.Run{
		Model: m.Name, SpecFile: m.SpecFile, Spec: m.Spec, SpecHash: m.SpecHash, Generator: m.Generator,
		Device: t.session.Device(), Precision: t.session.Precision(),
		Data: t.sets.Name, Train: t.sets.Train.Len(), Val: t.sets.Val.Len(), Image: m.Image,
		Seed: t.session.Seed(), Batch: batchText(m), Optimizer: optimizerText(&m.Train), Schedule: scheduleText(&m.Train.Schedule),
		Epochs: t.plan.Epochs, Updates: t.total, Dir: t.dir, Parameters: m.ParamCount(),
	}
}

// record adds a record to the run's history and to the page.
func (t *training) record(r report.Record) error {
	t.board.Publish(r)
	return t.history.Add(r)
}

// boardProgress tells the page where the run is.
func (t *training) boardProgress(phase string) {
	if t.board == nil {
		return
	}
	unknown := math.NaN()
	p := board.Progress{Phase: phase, Step: t.updates, Epoch: t.epochsMade(), LR: unknown, TrainLoss: unknown, SamplesPerSec: unknown}
	if now := t.interval; now.samples > 0 && !t.mark.IsZero() {
		now.busy += time.Since(t.mark)
		p.TrainLoss, _ = now.result()
		p.LR, p.SamplesPerSec = t.lr, now.speed()
	}
	t.board.Progress(p)
}

// boardPredictions shows what an evaluation found.
func (t *training) boardPredictions(e *evaluation) {
	if t.board == nil {
		return
	}
	p := board.Predictions{Step: t.updates, Epoch: t.epochsMade(), Wrong: e.samples, Samples: e.samples}
	for _, n := range e.correct {
		p.Wrong -= n
	}
	p.Same = e.predictions(t.sets, e.spread)
	p.Missed = e.predictions(t.sets, e.mistakes[:min(len(e.mistakes), maxSpread)])
	t.board.Predictions(p)
}

// predictions are samples with what the model takes them for. One that cannot be
// read any more is left out.
func (e *evaluation) predictions(l *loaders, of []mistake) (out []board.Prediction) {
	names, shape := e.names(l), l.Val.Shape()
	for _, m := range of {
		pixels := make([]uint8, shape[0]*shape[1]*shape[2])
		if _, err := l.Val.Sample(m.sample, pixels); err != nil {
			continue
		}
		out = append(out, board.Prediction{
			Picture: report.Pixels(shape, pixels), Guess: names[m.guess], Probability: m.probability, Truth: names[m.label],
		})
	}
	return out
}

// finishBoard says on the page how the run ended.
func (t *training) finishBoard(err error) {
	score := ""
	if t.best != nil {
		score = fmt.Sprintf("Final validation accuracy %.2f %% (best %.2f %%, epoch %.4g).", 100*t.last.Accuracy, 100*t.best.Accuracy, t.best.Epoch)
	}
	switch {
	case err != nil:
		t.board.Finish(board.Failed, err.Error())
	case t.validated < t.total && !t.stopped():
		t.board.Finish(board.Interrupted, fmt.Sprintf("Interrupted after update %d of %d, which is saved. %s", t.updates, t.total, score))
	case t.updates < t.total:
		t.board.Finish(board.Finished, fmt.Sprintf("Stopped early: the last %d validations were no better. %s", t.early.Bad, score))
	default:
		t.board.Finish(board.Finished, score)
	}
}

// batchText is the size of an effective batch: "128", or "64 × 4" micro-batches.
func batchText(m *runtime.Model) string {
	if m.Train.Accumulate > 1 {
		return fmt.Sprintf("%d × %d", m.Batch, m.Train.Accumulate)
	}
	return fmt.Sprint(m.Batch)
}

// optimizerText is "adamw, lr 0.001, weight decay 0.05", and what else is done
// with gradients and weights.
func optimizerText(t *runtime.Train) string {
	o := &t.Optimizer
	words := []string{o.Kind, fmt.Sprintf("lr %.4g", o.LR)}
	add := func(there bool, format string, v ...any) {
		if there {
			words = append(words, fmt.Sprintf(format, v...))
		}
	}
	add(o.Momentum != 0, "momentum %.4g", o.Momentum)
	add(o.Nesterov, "Nesterov")
	add(o.WeightDecay != 0, "weight decay %.4g", o.WeightDecay)
	add(t.ClipNorm != 0, "clip norm %.4g", t.ClipNorm)
	add(t.EMA.Decay != 0, "average %.6g", t.EMA.Decay)
	return strings.Join(words, ", ")
}

// scheduleText is "cosine to 1e-05, 46 updates of warm-up".
func scheduleText(s *runtime.Schedule) string {
	text := strings.ReplaceAll(s.Kind, "_", " ")
	switch s.Kind {
	case "cosine":
		text += fmt.Sprintf(" to %.4g", s.FinalLR)
	case "step":
		text += fmt.Sprintf(", × %.4g every %d %s", s.Gamma, s.Every, s.EveryUnit)
	}
	if s.WarmupSteps > 0 {
		text += fmt.Sprintf(", %d updates of warm-up", s.WarmupSteps)
	}
	return text
}
