package checkpoint

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// FuzzRead reads checkpoints whose state file is anything, but for checksums that
// fit: it is an error or a checkpoint, never a panic, and a state that is read is
// one that can be written.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	r := hastyRun(dir)
	if err := r.Save(testModel(), someCheckpoint(f, 2)); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(r.Path(2), StateFile)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	for _, c := range [][2]string{
		{`\"updates\":2`, `\"updates\":9`}, {`\"version\":1`, `\"version\":2`}, {`\"micro\":2`, `\"micro\":-`},
		{`vitgen.state`, `vitgen.stats`}, {`"losses"`, `"lasses"`}, {`\"per_epoch\":5`, `\"per_epoch\":0`}, {`\"window\"`, `\"updates`},
	} {
		f.Add(bytes.Replace(good, []byte(c[0]), []byte(c[1]), 1))
	}
	f.Fuzz(func(t *testing.T, state []byte) {
		if file, err := safetensors.Parse(bytes.Clone(state)); err == nil && file.Metadata[stateKey] != "" {
			file.Metadata[stateSumKey] = textSum(file.Metadata[stateKey])
			var b bytes.Buffer
			if err := safetensors.Encode(&b, file); err != nil {
				t.Fatal(err)
			}
			state = b.Bytes()
		}
		if err := os.WriteFile(path, state, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := Read(r.Path(2))
		if err != nil {
			if !strings.Contains(err.Error(), r.Path(2)) {
				t.Errorf("the error names no file: %v", err)
			}
			return
		}
		if _, err := json.Marshal(c.State); err != nil {
			t.Errorf("a state that was read cannot be written: %v", err)
		}
		whole, err := c.Checkpoint(testModel())
		if err != nil {
			return
		}
		if err := hastyRun(t.TempDir()).Save(testModel(), whole); err != nil {
			t.Errorf("a checkpoint that was read cannot be written: %v", err)
		}
	})
}

// What no trainer writes is refused with a reason.
func TestReadRefuses(t *testing.T) {
	r := hastyRun(t.TempDir())
	if err := r.Save(testModel(), someCheckpoint(t, 2)); err != nil {
		t.Fatal(err)
	}
	dir := r.Path(2)
	good := map[string][]byte{}
	for _, name := range []string{WeightsFile, AverageFile, StateFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		good[name] = b
	}
	// state changes a thing in the text of the state, and writes the file anew.
	state := func(from, to string) func() {
		return func() {
			file, err := safetensors.Parse(bytes.Clone(good[StateFile]))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(file.Metadata[stateKey], from, to, 1)
			if text == file.Metadata[stateKey] {
				t.Fatalf("no %s in %s", from, text)
			}
			file.Metadata[stateKey], file.Metadata[stateSumKey] = text, textSum(text)
			if err := safetensors.Write(filepath.Join(dir, StateFile), file); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func() {
		return func() {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap := func(a, b string) func() {
		return func() {
			if err := os.WriteFile(filepath.Join(dir, a), good[b], 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func()
		want   string
	}{
		{"nothing", func() {}, ""},
		{"a digit", func() {
			bad := bytes.Replace(good[StateFile], []byte(`\"lr\":0.1`), []byte(`\"lr\":0.2`), 1)
			if err := os.WriteFile(filepath.Join(dir, StateFile), bad, 0o644); err != nil || bytes.Equal(bad, good[StateFile]) {
				t.Fatal("nothing changed", err)
			}
		}, "the checksum of vitgen.state is "},
		{"no weights", remove(WeightsFile), "has no weights.safetensors: it is not a checkpoint, or not all of one"},
		{"no average", remove(AverageFile), "has no average.safetensors"},
		{"no state", remove(StateFile), "has no state.safetensors"},
		{"the average for the weights", swap(WeightsFile, AverageFile), "weights.safetensors: its checksum is not the one in state.safetensors"},
		{"weights for the state", swap(StateFile, WeightsFile), "its metadata has no vitgen.state: no trainer of vitgen wrote it"},
		{"version", state(`"version":1`, `"version":7`), "format version 7; this program reads version 1"},
		{"updates", state(`"updates":2`, `"updates":-2`), "updates is -2"},
		{"micro", state(`"micro":2`, `"micro":1`), "2 updates of 1 micro-batches"},
		{"validated", state(`"validated":-1`, `"validated":3`), "validated after update 3 of 2"},
		{"plan", state(`"per_epoch":5`, `"per_epoch":0`), "the plan is"},
		{"metrics", state(`"metrics":"exact"`, `"metrics":"guess"`), `metrics are "guess"`},
		{"best", state(`"best":"accuracy"`, `"best":"luck"`), `best is by "luck"`},
		{"seed", state(`"seed":1`, `"seed":-1`), "vitgen.state"},
	} {
		c.change()
		_, err := Read(dir)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir)) {
			t.Errorf("%s: %v", c.name, err)
		}
		for name, b := range good {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Read(filepath.Join(dir, StateFile)); err == nil || !strings.Contains(err.Error(), "is a file; a checkpoint is a directory") {
		t.Error(err)
	}
}
