// Package report keeps what a run tells of itself and draws it: records in
// metrics.jsonl and in TensorBoard's event files, curves, confusion matrices
// and sheets of misclassified pictures. It knows nothing of models and
// sessions.
package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// Record is one line of metrics.jsonl.
type Record struct {
	Kind          string   `json:"kind"`       // Interval or Epoch
	Step          int      `json:"step"`       // updates made
	Epoch         float64  `json:"epoch"`      // epochs made
	LR            float64  `json:"lr"`         // of the last update
	TrainLoss     float64  `json:"train_loss"` // mean of the interval, or of the epoch
	ValLoss       *float64 `json:"val_loss,omitempty"`
	ValAcc        *float64 `json:"val_acc,omitempty"` // 0 … 1
	SamplesPerSec float64  `json:"samples_per_sec"`   // of training alone
	DataWait      float64  `json:"data_wait"`         // share, 0 … 1, of the time that the step waited for data
	Skipped       int      `json:"skipped,omitempty"` // updates left out as outliers, in all
}

// Kinds of records: some updates within an epoch, or its end.
const (
	Interval = "interval"
	Epoch    = "epoch"
)

// metricsName is the file of a run's records, one JSON object a line.
const metricsName = "metrics.jsonl"

// maxLine bounds a line of metrics.jsonl; ours have some 200 bytes.
const maxLine = 1 << 16

// History is a run's records: in memory for the curves, in metrics.jsonl and in
// a TensorBoard event file. What Add and AddImages have been given is in the
// files when they return, so a killed process loses nothing. A History is for
// one goroutine at a time.
type History struct {
	dir     string
	file    *os.File
	events  *events
	records []Record

	drawn time.Time     // when the curves were drawn last
	cost  time.Duration // of that
	stale string        // title of the curves that Refresh has not drawn; empty: none
}

// Open starts the history of a new run in a directory that exists. Records and
// event files that an earlier run of vitgen left there are replaced.
func Open(dir string) (*History, error) {
	if err := removeEvents(dir); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, metricsName))
	if err != nil {
		return nil, err
	}
	return open(dir, f, nil, 0)
}

// Resume goes on with a run's history after its update number step. Later
// records, and a last line that a crash cut off, are dropped from metrics.jsonl,
// which is replaced at once or not at all; TensorBoard is told to forget what
// it has of later updates. A history that is not there starts empty.
func Resume(dir string, step int) (*History, error) {
	path := filepath.Join(dir, metricsName)
	keep, records, err := readRecords(path, step)
	if err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(path, keep, 0o644); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return open(dir, f, records, step+1)
}

// open makes the History of an open metrics.jsonl; first is the first update
// that is not in it.
func open(dir string, f *os.File, records []Record, first int) (*History, error) {
	e, err := newEvents(dir, first)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &History{dir: dir, file: f, events: e, records: records}, nil
}

// readRecords reads the records up to and including an update, with their text
// as it stands in the file.
func readRecords(path string, step int) (keep []byte, records []Record, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, maxLine)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, nil, fmt.Errorf("%s:%d: a line of more than %d bytes is no record of vitgen's", path, number, maxLine)
		} else if err != nil && err != io.EOF {
			return nil, nil, err
		}
		r, bad := parseRecord(line)
		if bad == nil && r.Step <= step {
			keep, records = append(append(keep, bytes.TrimSpace(line)...), '\n'), append(records, r)
		}
		if err == nil {
			_, err = lines.Peek(1)
		}
		if err == io.EOF {
			return keep, records, nil // the last line may be what a crash left of one
		} else if bad != nil {
			return nil, nil, fmt.Errorf("%s:%d: %w; move the file away to go on without its records", path, number, bad)
		}
	}
}

func parseRecord(line []byte) (r Record, err error) {
	if err = json.Unmarshal(line, &r); err == nil && r.Kind == "" {
		err = errors.New("no record of vitgen's")
	}
	return r, err
}

// Add appends a record: in memory, and at once in metrics.jsonl and as
// TensorBoard's scalars.
func (h *History) Add(r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("%s: update %d: %w", metricsName, r.Step, err)
	}
	if _, err := h.file.Write(append(line, '\n')); err != nil {
		return err
	}
	h.records = append(h.records, r)
	return h.events.write(r.Step, summary(scalars(&r)...))
}

// scalars are what TensorBoard shows of a record.
func scalars(r *Record) [][]byte {
	if r.Kind != Epoch {
		return [][]byte{
			scalar("train/loss", r.TrainLoss), scalar("lr", r.LR),
			scalar("samples_per_sec", r.SamplesPerSec), scalar("data_wait", r.DataWait),
		}
	}
	// The epoch's own training loss has a curve of its own: one point of
	// train/loss for a step, not two.
	values := [][]byte{scalar("train/epoch_loss", r.TrainLoss)}
	if r.ValLoss != nil {
		values = append(values, scalar("val/loss", *r.ValLoss))
	}
	if r.ValAcc != nil {
		values = append(values, scalar("val/accuracy", *r.ValAcc))
	}
	return values
}

// Records are all records so far, oldest first. They must not be changed.
func (h *History) Records() []Record { return h.records }

// Close draws curves that Refresh has put off, and closes the files.
func (h *History) Close() (err error) {
	if h.stale != "" {
		err = h.Curves(h.stale)
	}
	return errors.Join(err, h.file.Close(), h.events.close())
}

// writeFile replaces a file at once or not at all.
func writeFile(path string, from io.WriterTo) error {
	var b bytes.Buffer
	if _, err := from.WriteTo(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return renameio.WriteFile(path, b.Bytes(), 0o644)
}
