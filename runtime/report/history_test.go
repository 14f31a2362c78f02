package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// learn adds what a run of some epochs, 10 updates each, would.
func learn(t *testing.T, h *History, from, to int) {
	t.Helper()
	for step := from; step <= to; step += 5 {
		e := float64(step) / 10
		r := Record{Kind: Interval, Step: step, Epoch: e, LR: 0.5 / e, TrainLoss: 2.3 / (1 + e), SamplesPerSec: 1000, DataWait: 0.01}
		if err := h.Add(r); err != nil {
			t.Fatal(err)
		}
		if step%10 == 0 {
			loss, acc := 2.4/(1+0.8*e), 1-1/(1+e)
			r.Kind, r.ValLoss, r.ValAcc = Epoch, &loss, &acc
			if err := h.Add(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func mustOpen(t *testing.T, dir string) *History {
	t.Helper()
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func mustResume(t *testing.T, dir string, step int) *History {
	t.Helper()
	h, err := Resume(dir, step)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func readMetrics(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, metricsName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A run that was interrupted and resumed has the records of one that was not.
func TestResume(t *testing.T) {
	whole, parts := t.TempDir(), t.TempDir()
	h := mustOpen(t, whole)
	learn(t, h, 5, 40)

	learn(t, mustOpen(t, parts), 5, 30) // and not even closed
	f, err := os.OpenFile(filepath.Join(parts, metricsName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"kind":"interval","step":35,"epo`)
	f.Close()
	resumed := mustResume(t, parts, 20)
	if n := len(resumed.Records()); n != 6 {
		t.Errorf("%d records up to update 20, want 6", n)
	}
	learn(t, resumed, 25, 40)
	if !reflect.DeepEqual(resumed.Records(), h.Records()) {
		t.Errorf("the records are\n%+v, without the interruption\n%+v", resumed.Records(), h.Records())
	}
	if got, want := readMetrics(t, parts), readMetrics(t, whole); !bytes.Equal(got, want) {
		t.Errorf("%s holds\n%s, without the interruption\n%s", metricsName, got, want)
	}
	// A new run in the directory does not start with the old one's records.
	if again := mustOpen(t, parts); len(again.Records()) != 0 || len(readMetrics(t, parts)) != 0 {
		t.Error("a new run starts with records")
	}
}

func TestResumeOfSpoiltRecords(t *testing.T) {
	line := func(step int) string {
		b, _ := json.Marshal(Record{Kind: Interval, Step: step})
		return string(b) + "\n"
	}
	for _, c := range []struct {
		name, text string
		records    int    // kept
		err        string // in it
	}{
		{"nothing", "", 0, ""},
		{"whole", line(1) + line(2) + line(3), 2, ""},
		{"no last end of line", line(1) + strings.TrimSpace(line(2)), 2, ""},
		{"cut off", line(1) + line(2)[:20], 1, ""},
		{"zeros at the end", line(1) + "\x00\x00\x00\x00", 1, ""},
		{"zeros and an end of line", line(1) + "\x00\x00\n", 1, ""},
		{"bad in the middle", line(1) + "oops\n" + line(2), 0, metricsName + ":2: "},
		{"something else's", "{}\n" + line(2), 0, metricsName + ":1: no record"},
		{"a type that differs", `{"kind":"interval","step":"one"}` + "\n" + line(2), 0, metricsName + ":1: "},
		{"endless", line(1) + strings.Repeat("x", maxLine+1), 0, metricsName + ":2: a line of more than"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, metricsName), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := Resume(dir, 2)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: the error is %v, want one with %q", c.name, err, c.err)
			}
			if string(readMetrics(t, dir)) != c.text {
				t.Errorf("%s: the file was changed", c.name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(h.Records()) != c.records || bytes.Count(readMetrics(t, dir), []byte("\n")) != c.records {
			t.Errorf("%s: %d records, want %d; the file holds\n%s", c.name, len(h.Records()), c.records, readMetrics(t, dir))
		}
		h.Close()
	}
	// Records may be missing altogether: the weights are what matters.
	mustResume(t, t.TempDir(), 7)
	if _, err := Resume(filepath.Join(t.TempDir(), "nowhere"), 7); err == nil {
		t.Error("a directory that does not exist is resumed in")
	}
}

// What cannot be written as JSON is an error, and no half a line.
func TestAddNaN(t *testing.T) {
	dir := t.TempDir()
	h := mustOpen(t, dir)
	zero := 0.0
	if err := h.Add(Record{Kind: Interval, Step: 9, TrainLoss: zero / zero}); err == nil || !strings.Contains(err.Error(), "update 9") {
		t.Errorf("the error is %v", err)
	}
	if len(readMetrics(t, dir)) != 0 || len(h.Records()) != 0 {
		t.Error("it was recorded")
	}
}

// FuzzResume: whatever metrics.jsonl holds, resuming fails or leaves a file of
// whole records that resuming again does not change.
func FuzzResume(f *testing.F) {
	f.Add([]byte(`{"kind":"interval","step":3,"epoch":0.5,"lr":0.1,"train_loss":2,"samples_per_sec":9,"data_wait":0}` + "\n" + `{"kind":"epo`))
	f.Add([]byte("{\"kind\":\"epoch\",\"step\":-1,\"val_loss\":null}\n\n\x00"))
	f.Add([]byte("\r\n[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, metricsName), text, 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := Resume(dir, 5)
		if err != nil {
			return
		}
		h.Close()
		kept := readMetrics(t, dir)
		again := mustResume(t, dir, 5)
		if !bytes.Equal(readMetrics(t, dir), kept) || len(again.Records()) != len(h.Records()) || bytes.Count(kept, []byte("\n")) != len(h.Records()) {
			t.Errorf("%d records, then %d, of\n%q", len(h.Records()), len(again.Records()), kept)
		}
	})
}
