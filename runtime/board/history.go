package board

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/vitgen/vitgen/runtime/report"
)

// maxRecords bounds what a board holds. Beyond it the history is thinned to
// about half, and clients are sent it anew: so their memory is bounded too.
const maxRecords = 4096

// history is a run's records, thinned where there are too many.
type history struct {
	limit      int
	generation int     // counts thinnings, from 1
	first      int     // number of the generation's first record that is not thinned
	entries    []entry // in order
	last       int     // number of the last record, from 1
}

type entry struct {
	record report.Record
	json   json.RawMessage
}

func newHistory() history { return history{limit: maxRecords, generation: 1} }

// place is how far a client has got: the zero place is before everything.
type place struct{ generation, last int }

// add appends a record.
func (h *history) add(r report.Record) {
	h.entries = append(h.entries, entry{r, encode(r)})
	h.last++
	if len(h.entries) > h.limit {
		h.thin()
	}
}

// encode writes a record as metrics.jsonl has it, null for what is no number.
func encode(r report.Record) json.RawMessage {
	text, err := json.Marshal(r)
	if err != nil { // NaN or an infinity
		text, err = json.Marshal(struct {
			report.Record
			LR            number  `json:"lr"`
			TrainLoss     number  `json:"train_loss"`
			ValLoss       *number `json:"val_loss,omitempty"`
			ValAcc        *number `json:"val_acc,omitempty"`
			SamplesPerSec number  `json:"samples_per_sec"`
			DataWait      number  `json:"data_wait"`
		}{r, number(r.LR), number(r.TrainLoss), (*number)(r.ValLoss), (*number)(r.ValAcc), number(r.SamplesPerSec), number(r.DataWait)})
	}
	if err != nil {
		panic("BUG: a record cannot be written as JSON: " + err.Error())
	}
	return text
}

// since is what a client at a place lacks, and where it is then. Whole says that
// it is all there is, to be shown in place of what the client has.
func (h *history) since(p place) (records []json.RawMessage, whole bool, now place) {
	now = place{h.generation, h.last}
	from := 0
	if p.generation == h.generation && p.last >= h.first && p.last <= h.last {
		from = len(h.entries) - (h.last - p.last)
	} else {
		whole = true
	}
	records = make([]json.RawMessage, 0, len(h.entries)-from)
	for _, e := range h.entries[from:] {
		records = append(records, e.json)
	}
	return records, whole, now
}

// thin halves the intervals' records, and the epochs' if those alone are more
// than half the limit. Of four neighbours it keeps the lowest and the highest
// loss: a curve keeps its spikes and its shape.
func (h *history) thin() {
	isEpoch := func(r *report.Record) bool { return r.Kind == report.Epoch }
	var epochs, others []int
	for i := range h.entries {
		if isEpoch(&h.entries[i].record) {
			epochs = append(epochs, i)
		} else {
			others = append(others, i)
		}
	}
	keep := map[int]bool{0: true, len(h.entries) - 1: true}
	h.extremes(keep, others, func(r *report.Record) float64 { return r.TrainLoss })
	if len(epochs) > h.limit/2 {
		h.extremes(keep, epochs, func(r *report.Record) float64 { return *cmp.Or(r.ValLoss, &r.TrainLoss) })
		h.keepBest(keep, epochs)
	} else {
		for _, i := range epochs {
			keep[i] = true
		}
	}
	kept := h.entries[:0]
	for i, e := range h.entries {
		if keep[i] {
			kept = append(kept, e)
		}
	}
	clear(h.entries[len(kept):])
	h.entries = kept
	h.generation++
	h.first = h.last
}

// extremes keeps the lowest and the highest of each four of the records.
func (h *history) extremes(keep map[int]bool, of []int, value func(*report.Record) float64) {
	for four := range slices.Chunk(of, 4) {
		low, high := four[0], four[len(four)-1]
		for _, i := range four {
			switch v := value(&h.entries[i].record); {
			case v < value(&h.entries[low].record):
				low = i
			case v > value(&h.entries[high].record):
				high = i
			}
		}
		keep[low], keep[high] = true, true
	}
}

// keepBest keeps the epoch of the highest accuracy, which the page names.
func (h *history) keepBest(keep map[int]bool, epochs []int) {
	best := -1
	for _, i := range epochs {
		acc := h.entries[i].record.ValAcc
		if acc != nil && (best < 0 || *acc > *h.entries[best].record.ValAcc) {
			best = i
		}
	}
	if best >= 0 {
		keep[best] = true
	}
}

// Publish adds a record to the curves.
func (b *Board) Publish(r report.Record) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records.add(r)
	b.wake()
}
